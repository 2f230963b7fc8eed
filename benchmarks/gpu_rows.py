"""Rows of the GPU table from the core: a network eager and compiled, and another implementation of it.

Run by gpu.py in a process of its own for each network and size: python benchmarks/gpu_rows.py '{"network": ...}'
writes a line of JSON for each row.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import gpu_clock as clock
import torch
from step import DTYPES, build

import pixeldit_core as pc

TINY = {
    "pixeldit": pc.PixelDiTParams(32, 2, 2, 1, patch_size=8, pixel_hidden_size=4, num_classes=10),
    "pixeldit_t2i": pc.PixelDiTT2IParams(
        32, 2, 2, 2, 24, 3, patch_size=8, pixel_hidden_size=4, txt_embed_dim=20, txt_max_length=12
    ),
}
NETWORKS = {"class": ("pixeldit", "PixelDiT-XL"), "text": ("pixeldit_t2i", "PixelDiT-T2I")}
Velocity = Callable[[torch.Tensor, float, Any], torch.Tensor]


@dataclass
class Row:
    """What is measured of one form of a network at one batch; times in seconds, memory in MiB."""

    network: str
    size: int
    dtype: str
    form: str  # eager, compiled, official, native ...
    batch: int  # images
    guided: float | None = None  # a step of `batch` images with guidance: 2 rows for each
    image: float | None = None  # per image, with the published settings
    fraction: float | None = None  # of the rate of a plain product
    peak: float | None = None
    estimate: float | None = None  # ComfyUI's, of that memory
    note: str = ""


@dataclass
class Task:
    """What a process is asked for."""

    network: str
    size: int
    dtype: str
    device: str
    batches: list[int]
    rounds: int
    tiny: bool = False
    compile: bool = True
    against: str = ""  # MODULE:FACTORY
    product: int = 8192


def name_of(task: Task) -> str:
    return f"tiny {NETWORKS[task.network][0]}" if task.tiny else NETWORKS[task.network][1]


def make_model(task: Task) -> pc.Model:
    """The network with random weights that keep values moderate."""
    family, preset = NETWORKS[task.network]
    if not task.tiny:
        return build(preset, task.device, DTYPES[task.dtype])
    model = pc.build_model(family, TINY[family], device=task.device, dtype=DTYPES[task.dtype])
    for name, parameter in model.network.named_parameters():
        parameter.fill_(1.0) if parameter.ndim == 1 and "norm" in name else parameter.normal_(0.0, 0.02)
    return model


def condition(model: pc.Model, rows: int, device: str) -> Any:
    """A condition for each row."""
    if model.family.condition == "class":
        return (torch.arange(rows) % model.params.num_classes).to(device)
    states = torch.randn(rows, model.params.txt_max_length, model.params.txt_embed_dim, device=device)
    return pc.text_condition(model, states)


def evaluations(model: pc.Model, size: int) -> tuple[int, int]:
    """Steps of the published settings with guidance, and without."""
    settings = model.spec.settings_for((size, size))
    times = pc.time_grid(model, settings.steps, settings.timeshift)[:-1]
    guided = sum(pc.is_guided(float(t), settings.cfg_interval) for t in times)
    return guided, settings.steps - guided


def compiled(model: pc.Model, size: int) -> Velocity:
    """The model's compiled velocity, which a sampling makes: of two images, for a single row is another graph."""
    cond, null = condition(model, 2, str(model.device)), None
    if model.family.condition == "text":
        null = condition(model, 1, str(model.device))
    pc.sample(model, cond, null, size=(size, size), steps=2, compile=True)
    return model.compiled


def other(task: Task) -> Velocity:
    """The network that MODULE:FACTORY makes, called as (x, time [B], class [B])."""
    module, _, factory = task.against.partition(":")
    network = getattr(importlib.import_module(module), factory)()
    network = network.to(task.device, DTYPES[task.dtype]).eval().requires_grad_(False)
    dtype = DTYPES[task.dtype]

    def call(x: torch.Tensor, t: float, labels: torch.Tensor) -> torch.Tensor:
        return network(x.to(dtype), torch.full((len(x),), t, device=x.device), labels)

    return call


def forms(task: Task, model: pc.Model) -> dict[str, Callable[[], Velocity]]:
    """How each form is made; what one of them raises is its row."""
    found: dict[str, Callable[[], Velocity]] = {"eager": lambda: model.velocity}
    if task.compile:
        found["compiled"] = lambda: compiled(model, task.size)
    if task.against:
        found["official"] = lambda: other(task)
    return found


@torch.inference_mode()
def rows(task: Task) -> Iterator[Row]:
    """Every form at every batch, the forms by turns."""
    model, made, failed = make_model(task), {}, {}
    for form, make in forms(task, model).items():
        try:
            made[form] = make()
        except Exception as error:  # whatever it raises is the result
            failed[form] = clock.describe(error)
    plain, product_operations = clock.product(task.device, DTYPES[task.dtype], task.product)
    for batch in task.batches:
        blank = {form: Row(name_of(task), task.size, task.dtype, form, batch) for form in forms(task, model)}
        for form, note in failed.items():
            blank[form].note = note
        calls = {"product": plain}
        for form, velocity in made.items():
            try:
                guided, alone = make_calls(task, model, velocity, batch)
                blank[form].peak = clock.peak(guided, task.device)
                calls[form] = guided
                if form != "compiled" or batch > 1:  # a single row would be compiled once more
                    alone()
                    calls[f"{form} alone"] = alone
            except Exception as error:
                blank[form].note = clock.describe(error)
                calls.pop(form, None)
                clock.release(task.device)
        try:
            times = clock.medians(calls, task.device, task.rounds)
            work = clock.operations(calls["eager"]) if "eager" in calls else 0
            for form in made:
                if form in times:
                    fill(blank[form], times, form, work, product_operations, evaluations(model, task.size))
        except Exception as error:
            for row in blank.values():
                row.note = row.note or clock.describe(error)
        clock.release(task.device)
        yield from blank.values()


def make_calls(task: Task, model: pc.Model, velocity: Velocity, batch: int) -> tuple[clock.Call, clock.Call]:
    """A step with guidance, and one without."""
    x = torch.randn(2 * batch, model.params.in_channels, task.size, task.size, device=task.device)
    both = condition(model, 2 * batch, task.device)
    half, one = x[:batch].clone(), condition(model, batch, task.device)
    return lambda: velocity(x, 0.5, both), lambda: velocity(half, 0.5, one)


def fill(
    row: Row, times: dict[str, float], form: str, work: int, product_operations: int, steps: tuple[int, int]
) -> None:
    """Numbers from times. A step without guidance that was not timed counts as half of one with it."""
    row.guided = times[form]
    alone = times.get(f"{form} alone", times[form] / 2)
    row.image = (steps[0] * row.guided + steps[1] * alone) / row.batch
    row.fraction = work / row.guided / (product_operations / times["product"])


def main() -> None:
    for row in rows(Task(**json.loads(sys.argv[1]))):
        sys.stdout.write(json.dumps(asdict(row)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
