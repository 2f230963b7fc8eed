"""What a LoRA adds to the weights of a network: pairs of low-rank matrices, and differences of whole tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ..families import Shapes
from .lora_difference import Difference

WHOLE = re.compile(r"(?P<block>pixel_blocks\.\d+\.adaLN_modulation)\.0\.weight")
MAPS = {"msa": slice(0, 3), "mlp": slice(3, 6)}  # of the six of a pixel modulation, those of ComfyUI's halves
_HALF = re.compile(r"(?P<block>pixel_blocks\.\d+\.adaLN_modulation)_(?P<half>msa|mlp)\.weight")
_ROWS_TO_MAPS = "(pixel map channel) rank -> pixel map channel rank"
_MAPS_TO_ROWS = "pixel map channel rank -> (pixel map channel) rank"


@dataclass(frozen=True, eq=False)
class Pair:
    """What a LoRA adds to one weight: strength * scale * up @ down."""

    up: Tensor  #                    [out, r]
    down: Tensor  #                  [r, in]; of a convolution in = all dimensions of the weight after its first
    alpha: float | None = None  #    scale = alpha / r; None = 1

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.down.shape[0]

    def added_to(self, weight: Tensor, strength: float) -> Tensor:
        """The weight [out, in, ...] plus this; computed in float32, returned in the weight's dtype."""
        up, down = (part.to(weight.device, torch.float32) for part in (self.up, self.down))
        added = torch.addmm(weight.float().flatten(1), up, down, alpha=strength * self.scale)
        return added.view(weight.shape).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA file, read for one network."""

    pairs: dict[str, Pair]  #        by canonical name of the weight
    unknown: tuple[str, ...]  #      modules, and tensors of none, that fit no weight of the network
    applied: int  #                  modules of the file that are in the network
    total: int  #                    modules in the file
    source: str  #                   file name, for messages
    differences: dict[str, Difference] = field(default_factory=dict)  # by canonical name of the tensor
    notes: tuple[str, ...] = ()  #   what of its training is not applied, or had to be assumed: a sentence for each

    @property
    def deltas(self) -> dict[str, Pair | Difference]:
        """All that it adds, by canonical name of the tensor."""
        return {**self.pairs, **self.differences}


def split_pair(name: str, pair: Pair, channels: int) -> dict[str, Pair]:
    """Split the pair of a whole pixel modulation into two, for ComfyUI's halves (spec: layouts, section 4); exact.

    Args:
        name: of the whole weight; the pair of any other weight is returned as it is.
        channels: width of a pixel, C; the rows of the matrix are [P, 6, C].

    Raises:
        ValueError: rows that are not six maps of that width.
    """
    match = WHOLE.fullmatch(name)
    if not match:
        return {name: pair}
    rows = pair.up.shape[0]
    if rows % (6 * channels):
        raise ValueError(f"{name} has {rows} rows, not six maps of {channels} channels: ComfyUI has no such halves.")
    maps = rearrange(pair.up, _ROWS_TO_MAPS, map=6, channel=channels)
    halves = {half: rearrange(maps[:, part], _MAPS_TO_ROWS) for half, part in MAPS.items()}
    return {f"{match['block']}_{half}.weight": Pair(up, pair.down, pair.alpha) for half, up in halves.items()}


def join_pairs(pieces: Mapping[str, Pair], shapes: Shapes, source: str) -> dict[str, Pair]:
    """Pairs by canonical name: those on ComfyUI's halves of a pixel modulation become one on the whole."""
    pairs, blocks = {}, {}
    for name, pair in pieces.items():
        if match := _HALF.fullmatch(name):
            blocks.setdefault(f"{match['block']}.0.weight", {})[match["half"]] = pair
        else:
            pairs[name] = pair
    for name, halves in blocks.items():
        if name in pairs:
            raise ValueError(f"{source} has pairs for {name} and for ComfyUI's halves of it. Save one alone.")
        rows, width = shapes[name][0], shapes["pixel_embedder.proj.weight"][0]
        ranks = [len(pair.down) for pair in halves.values()]
        up = torch.zeros(rows // (6 * width), 6, width, sum(ranks))  # of each half, in its own rows and columns
        for (half, pair), columns in zip(halves.items(), up.split(ranks, dim=-1), strict=True):
            scaled = pair.up.float() * pair.scale
            columns[:, MAPS[half]] = rearrange(
                scaled, "(pixel map channel) r -> pixel map channel r", map=3, channel=width
            )
        pairs[name] = Pair(up.view(rows, -1), torch.cat([pair.down.float() for pair in halves.values()]))
    return pairs
