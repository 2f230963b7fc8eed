"""Three ways to save network evaluations by reuse, for benchmarks/cache.py: patch tokens, EasyCache, LazyCache.

Patch tokens: the patch blocks of a PixelDiT are left out where their input has changed little, and what they returned
before is used again; the pixel pathway sees every state. The other two leave out the whole network, and are ComfyUI's
nodes of these names, in own words; "change" is the mean of absolute differences there, of every eighth pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Measure = Literal["modulated", "embedded", "count"]
Reuse = Literal["output", "residual", "linear"]
Velocity = Callable[[Tensor, float], Tensor]


@dataclass
class PatchCache:
    """Takes the place of a class-conditional network's `run_blocks`; also counts.

    Rows are images, or null rows and then the same images: what was kept for a row is found from the end. The first and
    the last of the `calls` of a trajectory always compute, and so does a call with rows that nothing was kept for.

    Attributes:
        threshold: the blocks are left out while the accumulated change stays below; 0 = never.
        measure: of what the change is: the first block's input after norm and modulation (relative L1 between calls,
            mean over the rows; TeaCache, arXiv 2411.19108, without its polynomial), or before; or of each call, 1.
        reuse: what the blocks returned; or what they added to their input; or the line through the last two that were
            computed, over time.
    """

    network: Any
    threshold: float = 0.0
    measure: Measure = "modulated"
    reuse: Reuse = "output"
    calls: int = 0
    patch_rows: int = field(default=0, init=False)
    pixel_rows: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.compute = self.network.run_blocks
        self.network.run_blocks = self.run_blocks
        self.call, self.change = 0, 0.0
        self.seen: Tensor | None = None
        self.kept: list[tuple[float, Tensor]] = []  # time and result, the newest last
        self.time = 0.0

    def remove(self) -> None:
        """Give the network its own back."""
        del self.network.run_blocks

    def run_blocks(self, blocks: Any, streams: tuple[Tensor], condition: Tensor, *rest: Any, **options: Any) -> Any:
        """The patch tokens [B, L, D] after the blocks, computed or not."""
        (s,) = streams
        self.call += 1
        self.pixel_rows += len(s)
        if self.threshold and self.is_close(blocks[0], s, condition) and 1 < self.call < self.calls:
            return (self.again(s),)
        self.change = 0.0
        self.patch_rows += len(s)
        (out,) = self.compute(blocks, streams, condition, *rest, **options)
        if self.threshold:
            self.kept = [*self.kept[-1:], (self.time, out - s if self.reuse == "residual" else out)]
        return (out,)

    def is_close(self, block: Any, s: Tensor, condition: Tensor) -> bool:
        """Whether the input is still close to that of the kept tokens."""
        now, before = self.look(block, s, condition), self.seen
        self.seen = now
        if before is None or len(before) < len(s) or len(self.kept[-1][1]) < len(s):
            return False
        before = before[-len(s) :]
        if self.measure == "count":
            self.change += 1.0
        else:
            self.change += ((now - before).abs().mean((1, 2)) / before.abs().mean((1, 2))).mean().item()
        return self.change < self.threshold

    def look(self, block: Any, s: Tensor, condition: Tensor) -> Tensor:
        if self.measure != "modulated":
            return s
        shift, scale = block.adaLN_modulation(condition).chunk(6, dim=-1)[:2]
        return block.norm1(s) * (1 + scale) + shift

    def again(self, s: Tensor) -> Tensor:
        """What stands for the result of the blocks."""
        time, out = self.kept[-1]
        out = out[-len(s) :]
        if self.reuse == "residual":
            return s + out
        if self.reuse == "linear" and len(self.kept) == 2 and len(self.kept[0][1]) >= len(s):
            earlier, first = self.kept[0]
            return torch.lerp(first[-len(s) :], out, (self.time - earlier) / (time - earlier))
        return out


class EasyCache:
    """Around the network, (rows, t) -> velocities: the rule of arXiv 2507.02860 as ComfyUI 0.33 has it.

    The change of the input, times the last known ratio of changes of output and input, stands for the change of the
    output; accumulated and relative to its size, it is compared with the threshold. A call left out returns the input
    plus the last difference of output and input; the output is the velocity towards the noise.
    """

    def __init__(self, network: Velocity, threshold: float, start: float = 0.15, end: float = 0.95) -> None:
        self.network, self.threshold, self.start, self.end = network, threshold, start, end
        self.difference: Tensor | None = None
        self.first = 0  # rows whose change is measured: those of the first condition, where the cache began
        self.before: tuple[Tensor, Tensor, float] | None = None  # input and output, of some pixels; size of the output
        self.rate: float | None = None
        self.change = 0.0

    def __call__(self, x: Tensor, t: float, images: int) -> Tensor:
        if t >= self.end:
            return self.network(x, t)
        has_first, moved = False, None
        if t >= self.start:
            self.first = self.first or len(x)
            has_first = self.first == len(x)
            if has_first and self.before is not None:
                moved = _distance(x[:images], self.before[0])
                if self.rate is not None and self.difference is not None:
                    self.change += self.rate * moved / self.before[2]
                    if self.change < self.threshold:
                        return -(x + self.difference)
                    self.change = 0.0
        out = -self.network(x, t)
        self.difference = out - x
        if has_first:
            if moved is not None and self.before is not None:
                self.rate = _distance(out[:images], self.before[1]) / moved
            self.before = _some(x[:images]), _some(out[:images]), out.abs().mean().item()
        return -out


class LazyCache:
    """The same around the guided velocity, of what is denoised: x + (1 - t) v."""

    def __init__(self, velocity: Velocity, threshold: float, start: float = 0.15, end: float = 0.95) -> None:
        self.velocity, self.threshold, self.start, self.end = velocity, threshold, start, end
        self.difference: Tensor | None = None
        self.before: tuple[Tensor, Tensor, float] | None = None
        self.rate: float | None = None
        self.change = 0.0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        if t >= self.end:
            return self.velocity(x, t)
        moved = None
        if t >= self.start and self.before is not None and self.difference is not None:
            moved = _distance(x, self.before[0])
            if self.rate is not None:
                self.change += self.rate * moved / self.before[2]
                if self.change < self.threshold:
                    return self.difference / (1.0 - t)
                self.change = 0.0
        v = self.velocity(x, t)
        self.difference = (1.0 - t) * v
        image = x + self.difference
        if moved is not None and self.before is not None:
            self.rate = _distance(image, self.before[1]) / moved
        self.before = _some(x), _some(image), image.abs().mean().item()
        return v


def _some(x: Tensor) -> Tensor:
    return x[..., ::8, ::8]


def _distance(x: Tensor, some: Tensor) -> float:
    return (_some(x) - some).abs().mean().item()
