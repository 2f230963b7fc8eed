"""Does it pay to reuse patch tokens while sampling? Error to a fine reference against what an image costs.

    python benchmarks/cache.py models/pixeldit-emoji-96.safetensors
    python benchmarks/cache.py PixelDiT-B --size 256 --images 2      random weights

(a) plain sampling with every solver and fewer steps, (b) reuse of patch tokens, (c) ComfyUI's EasyCache and LazyCache,
in own words (caches.py), all from the same noise. The cost of an image counts rows of the two pathways, each by its
share of the time of a whole network call, in guided calls (two rows). The error is the root mean square difference to
`--reference` steps of heun_exact, of images in [0, 1]. For each budget the best of each kind is named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from caches import EasyCache, LazyCache, Measure, PatchCache, Reuse
from torch import Tensor

import pixeldit_core as pc


@dataclass(frozen=True)
class Method:
    """How to sample: plain where the kind is "plain", else with a cache of a threshold."""

    kind: str
    solver: str
    steps: int
    threshold: float = 0.0
    measure: Measure = "modulated"
    reuse: Reuse = "output"
    timeshift: float | None = None


@dataclass(frozen=True)
class Result:
    """What a method gave: rows per image through each pathway, error (median over the images, and of all), seconds."""

    method: Method
    patch_rows: float
    pixel_rows: float
    error: float
    error_of_all: float
    seconds: float

    def cost(self, share: float) -> float:
        """In guided network calls, if the pixel pathway takes this share of one."""
        return ((1 - share) * self.patch_rows + share * self.pixel_rows) / 2


@dataclass(frozen=True)
class Task:
    """What is sampled."""

    model: pc.Model
    noise: Tensor
    classes: Tensor
    cfg: float
    interval: tuple[float, float]


def sample(task: Task, method: Method) -> tuple[Tensor, PatchCache]:
    """The final states [B, C, H, W], and the counts."""
    model, images, times = task.model, len(task.noise), pc.time_grid(task.model, method.steps, method.timeshift)
    both = torch.cat([pc.null_condition(model, images), task.classes])
    calls = 2 * method.steps - 1 if method.solver == "heun_exact" else method.steps
    threshold = method.threshold if method.kind == "patches" else 0.0
    patches = PatchCache(model.network, threshold, method.measure, method.reuse, calls)

    def network(x: Tensor, t: float) -> Tensor:
        patches.time = t
        return model.velocity(x, t, both[-len(x) :])

    cached = EasyCache(network, method.threshold) if method.kind == "easy" else None
    call: Callable[[Tensor, float], Tensor] = (lambda x, t: cached(x, t, images)) if cached else network

    def velocity(x: Tensor, t: float) -> Tensor:
        if not pc.is_guided(t, task.interval):
            return call(x, t)
        v_null, v_cond = call(torch.cat([x, x]), t).chunk(2)
        return torch.lerp(v_null, v_cond, task.cfg)

    solve = pc.SOLVERS[method.solver]
    with torch.inference_mode():
        guided = LazyCache(velocity, method.threshold) if method.kind == "lazy" else velocity
        x = solve(guided, task.noise.clone(), times)
    patches.remove()
    return x, patches


def measure(task: Task, method: Method, reference: Tensor) -> Result:
    begin = time.perf_counter()
    x, counts = sample(task, method)
    seconds = time.perf_counter() - begin
    squares, count = (x.clamp(-1, 1) - reference).square().mean((1, 2, 3)), len(x)
    error, of_all = squares.median().sqrt().item() / 2, squares.mean().sqrt().item() / 2
    return Result(method, counts.patch_rows / count, counts.pixel_rows / count, error, of_all, seconds)


def plan(steps: list[int], thresholds: list[float], shifts: list[float]) -> Iterator[Method]:
    """Everything to compare."""
    reuses: tuple[Reuse, ...] = ("output", "residual", "linear")
    for solver, count in itertools.product(pc.SOLVERS, range(4, max(steps) + 1)):
        if count <= 8 or count in steps or count % 4 == 0:
            yield from (Method("plain", solver, count, timeshift=shift) for shift in shifts)
    for solver, count, shift in itertools.product(("ab2", "euler"), steps, shifts):
        for threshold in thresholds:
            yield from (Method(kind, solver, count, threshold, timeshift=shift) for kind in ("easy", "lazy"))
        looks: list[tuple[Measure, float]] = [("count", 2), ("count", 3)]
        looks += itertools.product(("modulated", "embedded"), thresholds)
        for (look, threshold), reuse in itertools.product(looks, reuses):
            yield Method("patches", solver, count, threshold, look, reuse, shift)


def pixel_share(task: Task, repeat: int = 5) -> float:
    """The share of a guided call's time that is not spent in the patch blocks: medians, by turns."""
    network: Any = task.model.network
    x = torch.cat([task.noise, task.noise])
    both = torch.cat([pc.null_condition(task.model, len(task.noise)), task.classes])
    whole, rest = [], []
    with torch.inference_mode():
        for _ in range(repeat + 1):
            whole.append(_seconds(lambda: task.model.velocity(x, 0.5, both)))
            network.run_blocks = lambda blocks, streams, *rest, **options: streams
            rest.append(_seconds(lambda: task.model.velocity(x, 0.5, both)))
            del network.run_blocks
    return statistics.median(rest[1:]) / statistics.median(whole[1:])


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def table(results: Iterable[Result], share: float, budgets: Iterable[float]) -> Iterator[str]:
    """A row for each budget of guided calls: the best of each kind, and patch tokens over the best of the others."""
    results = list(results)
    kinds = ("plain", "easy", "lazy", "patches")
    yield f"| guided calls, at most | {' | '.join(kinds)} | patches / best of the others |"
    yield f"|{'---|' * (len(kinds) + 2)}"
    for budget in budgets:
        best = {}
        for kind in kinds:
            affordable = [one for one in results if one.method.kind == kind and one.cost(share) <= budget + 1e-6]
            best[kind] = min(affordable, key=lambda one: one.error, default=None)
        others = [one.error for kind, one in best.items() if one and kind != "patches"]
        own = best["patches"]
        ratio = f"{own.error / min(others):.2f}" if own and others else ""
        yield f"| {budget:g} | {' | '.join(_describe(one) for one in best.values())} | {ratio} |"


def _describe(result: Result | None) -> str:
    if result is None:
        return ""
    method = result.method
    name = f"{result.error:.4f} {method.solver} {method.steps}"
    if method.timeshift not in (None, 1):
        name += f" timeshift {method.timeshift:g}"
    if method.kind == "patches":
        name += f" {method.measure} {method.reuse}"
    return name if method.kind == "plain" else f"{name} {method.threshold:g}"


def build(name: str, size: int | None) -> tuple[pc.Model, int]:
    """A checkpoint, or a network of random weights by its preset, and the side of its images.

    Random: N(0, 1 / inputs) for all but norms, so that values keep their size and no modulation and no output is
    zero. It says nothing about how smooth the trajectories of a trained network are.
    """
    if name not in pc.VARIANTS:
        model = pc.load_checkpoint(name)
        return model, size or model.spec.default_size[0]
    model = pc.build_model(pc.VARIANTS[name].family, name, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.network.named_parameters():
        if parameter.ndim == 1 and "norm" in key:
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return model, size or 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a class-conditional PixelDiT checkpoint, or a preset such as PixelDiT-B")
    parser.add_argument("--size", type=int, help="height and width (default: the model's)")
    parser.add_argument("--images", type=int, default=24, help="one class after the other (default: %(default)s)")
    parser.add_argument("--cfg", type=float, default=3.0, help="guidance scale (default: %(default)s)")
    parser.add_argument("--interval", type=float, nargs=2, default=(-1.0, 2.0), help="of guidance (default: all calls)")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 30], help="of cached sampling")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
    parser.add_argument("--timeshifts", type=float, nargs="+", default=[1.0, 2.0], help="(default: 1 and 2)")
    parser.add_argument("--budgets", type=float, nargs="+", default=[5, 6, 8, 10, 12, 15], help="guided calls")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[], help="more shares of the pixel pathway to assume"
    )
    parser.add_argument("--reference", type=int, default=100, help="steps of the reference (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="all results as JSON lines")
    options = parser.parse_args()

    model, size = build(options.model, options.size)
    noise = pc.unit_noise(model, range(1000, 1000 + options.images), size, size)
    classes = torch.arange(options.images) % model.params.num_classes
    task = Task(model, noise, classes, options.cfg, tuple(options.interval))
    reference = sample(task, Method("plain", "ab2", options.reference))[0].clamp(-1, 1)
    results = []
    for method in plan(options.steps, options.thresholds, options.timeshifts):
        results.append(measure(task, method, reference))
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(results[-1])) + "\n")
    own = pixel_share(task)
    for share in (own, *options.shares):
        sys.stdout.write(f"\nshare of the pixel pathway {share:.2f}{' (measured)' if share == own else ''}\n\n")
        sys.stdout.write("\n".join(table(results, share, options.budgets)) + "\n")


if __name__ == "__main__":
    main()
