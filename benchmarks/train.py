"""A training step: images per second, how near it comes to plain matrix products, and what is not the network's.

    python benchmarks/train.py --against benchmarks/plain_loop.py
    python benchmarks/train.py --variant PixelDiT-XL --batch 128 --micro-batch 32 --compile blocks

fraction: (3 x the floating-point operations of a forward / time of a step) over (operations / time of a large matrix
product of the same dtype). outside: share of a step that is neither forward nor backward: reading images, drawing
noise, clipping, optimizer, average. The loops take steps by turns in one process. Only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import pixeldit_core as pc
from pixeldit_core import training


class RandomImages(torch.utils.data.Dataset):
    """Noise as uint8 images, in memory."""

    def __init__(self, count: int, size: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        self.classes = classes

    def __getitem__(self, draw: training.Draw) -> training.Example:
        return training.Example(self.pixels[draw.index], draw.index % self.classes, None, draw, ())


def build(options: argparse.Namespace, device: torch.device) -> pc.Model:
    model = training.start_model(training.ModelConfig(family="pixeldit", variant=options.variant), None, 0)
    model.network.to(device).requires_grad_(True)
    return model


def shares(order: training.GlobalBatchSampler) -> Iterator[list[training.Draw]]:
    step = 0
    while True:
        yield order.batch(step)
        step += 1


class Ours:
    """The engine, with its loader, on the options' batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.config = training.TrainConfig(
            objective=training.ObjectiveConfig(),
            optim=training.OptimConfig(),
            average=training.AverageConfig(decays=(0.9999,)),
            engine=training.EngineConfig(
                batch_size=options.batch,
                micro_batch=options.micro_batch,
                precision=options.precision,
                compile=options.compile,
                activation_checkpointing=options.checkpointing,
            ),
        )
        self.engine = training.Engine(self.config)
        self.model = build(options, self.engine.device)
        loss = training.Loss(self.model, self.config.objective, None)
        training.apply_engine_config(self.model.network, self.config.engine)
        self.engine.prepare(loss, training.BatchMaker(self.model, None))
        data = RandomImages(4 * options.batch, options.size, self.model.params.num_classes)
        order = training.GlobalBatchSampler([(options.size, options.size)] * len(data.pixels), options.batch, 0)
        loader = torch.utils.data.DataLoader(
            data, batch_sampler=shares(order), collate_fn=training.collate, num_workers=options.workers,
            pin_memory=self.engine.device.type == "cuda",
        )  # fmt: skip
        self.loader, self.number = iter(loader), 0
        self.upcoming: training.Loaded | None = None
        self.fixed = [
            self.engine.make_batch(rows, self.engine.device) for rows in next(self.loader).split(options.micro_batch)
        ]

    def step(self) -> None:
        loaded = self.upcoming or next(self.loader)
        self.engine.step(loaded, self.number, ahead=self.peek)
        self.number += 1

    def peek(self) -> training.Loaded:
        self.upcoming = next(self.loader)
        return self.upcoming

    def optimize(self) -> None:
        """Clipping, optimizer and average, with the gradients that are there."""
        self.engine.accelerator.clip_grad_norm_(list(self.engine.loss.parameters()), 1.0)
        self.engine._update(self.number)

    def make_batches(self) -> None:
        """Images, noise and times of a step, on the device."""
        for rows in next(self.loader).split(self.engine.micro_batch):
            self.engine.make_batch(rows, self.engine.device)

    def forward_and_backward(self) -> None:
        for batch, draws in self.fixed:
            parts = self.engine.loss(batch, draws, 0)
            self.engine.accelerator.backward(sum(parts.values()).mean())


def plain(path: Path, options: argparse.Namespace, ours: Ours) -> Callable[[], Tensor]:
    """The step of another loop, with a network of its own."""
    spec = importlib.util.spec_from_file_location("against", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    device = ours.engine.device
    model = build(options, device)
    training.apply_engine_config(model.network, ours.config.engine)
    loaded: training.Loaded = next(ours.loader)
    assert loaded.labels is not None
    return module.make_step(
        model.network, loaded.pixels.to(device), loaded.labels.to(device), options.micro_batch,
        options.precision == "bf16",
    )  # fmt: skip


def seconds(function: Callable, device: torch.device) -> float:
    begin = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def product(device: torch.device, dtype: torch.dtype, side: int) -> Callable[[], Tensor]:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def forward_operations(options: argparse.Namespace) -> int:
    """Of one image."""
    network = pc.build_model("pixeldit", options.variant, device="meta").network
    x = torch.empty(1, 3, options.size, options.size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.empty(1, device="meta"), torch.zeros(1, dtype=torch.int64, device="meta"))
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="PixelDiT-B", choices=["PixelDiT-B", "PixelDiT-L", "PixelDiT-XL"])
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--batch", type=int, default=4, help="images per optimizer step (default: 4)")
    parser.add_argument("--micro-batch", type=int, help="images per forward (default: all)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", default="none", choices=["none", "blocks", "whole"])
    parser.add_argument("--checkpointing", action="store_true", help="activation checkpointing")
    parser.add_argument("--workers", type=int, default=1, help="processes that load images (default: 1)")
    parser.add_argument("--repeat", type=int, default=5, help="timed steps; the median counts (default: 5)")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another loop: a file with make_step()")
    options = parser.parse_args()
    options.micro_batch = options.micro_batch or options.batch
    ours = Ours(options)
    device = ours.engine.device
    functions: dict[str, Callable] = {
        "step": ours.step,
        "forward and backward": ours.forward_and_backward,
        "optimizer and average": ours.optimize,
        "reading and drawing": ours.make_batches,
    }
    if options.against:
        functions["against"] = plain(options.against, options, ours)
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    functions["product"] = product(device, dtype, side)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.repeat + 2):  # by turns, so that all see the same machine
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    report(options, {name: statistics.median(values[2:]) for name, values in times.items()}, side, device)


def report(options: argparse.Namespace, medians: dict[str, float], side: int, device: torch.device) -> None:
    step, inside = medians["step"], medians["forward and backward"]
    passes = 4 if options.checkpointing else 3
    rate = passes * forward_operations(options) * options.batch / step
    rows = {
        "images/s": f"{options.batch / step:.2f}",
        "step": f"{step:.3f} s",
        "fraction of matrix products": f"{rate / (2 * side**3 / medians['product']):.2f}",
        "outside forward and backward": f"{max(0.0, 1 - inside / step):.1%}",
        "optimizer and average alone": f"{medians['optimizer and average'] / step:.1%}",
        "reading and drawing alone, mostly while others compute": f"{medians['reading and drawing'] / step:.1%}",
    }
    if device.type == "cuda":
        rows["peak memory"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    if "against" in medians:
        rows["images/s of the other loop"] = f"{options.batch / medians['against']:.2f}"
        rows["time, this over the other"] = f"{step / medians['against']:.3f}"
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    sys.stdout.write(
        f"{options.variant}, {options.size} x {options.size}, batch {options.batch} in micro-batches of "
        f"{options.micro_batch}, {options.precision}, compile {options.compile}, {device.type} ({name}), torch "
        f"{torch.__version__}\n\n"
    )
    sys.stdout.write("".join(f"| {key} | {value} |\n" for key, value in rows.items()))


if __name__ == "__main__":
    main()
