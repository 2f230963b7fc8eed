"""An evaluation run: what of its time is not the network's, what the guidance interval saves, hours for 50,000 images.

    python benchmarks/evaluate.py                          PixelDiT-B on a CPU, 4 steps
    python benchmarks/evaluate.py --device cuda            PixelDiT-XL, 100 steps, bfloat16 autocast, as published
    python benchmarks/evaluate.py --write-npz              and the archive of the ADM suite

The settings are imagenet256-epoch320, the weights random. The parts are what the main thread waits for: noise, checks
of files and PNG files are made by other threads, and count as far as they keep it waiting. Fewer steps make the share
outside the network larger, so that of 4 steps is above that of the published 100. With --repeat, the run of the
smallest share counts: other programs on the machine can only enlarge it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from step import build, build_tiny
from torch import Tensor, nn

import pixeldit_core as pc
from pixeldit_core.evaluation import ImageFolder, Job, Plan, Progress, Writer, generate_images, write_archive

SETTINGS, WHOLE = pc.SETTINGS["imagenet256-epoch320"], 50_000
COPIES = 1_000
PARTS = {
    "solver": "in the sampler, beside the network: guidance and solver",
    "conversion": "conversion to uint8",
    "writing": "waiting for the writer",
    "preparing": "waiting for noise and the check of files",
    "closing": "writing the last files",
}


class NetworkClock:
    """Seconds of each call of a network, by its rows. CUDA events: the device is not waited for."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.cuda = device == "cuda"
        self.calls: list[tuple[int, Any, Any]] = []
        network.register_forward_pre_hook(self._enter)
        network.register_forward_hook(self._leave)

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _enter(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.rows, self.begin = len(arguments[0]), self._now()

    def _leave(self, *_: Any) -> None:
        self.calls.append((self.rows, self.begin, self._now()))

    def take(self) -> dict[int, list[float]]:
        """Of the calls since the last time."""
        times = defaultdict(list)
        for rows, begin, end in self.calls:
            times[rows].append(begin.elapsed_time(end) / 1000 if self.cuda else end - begin)
        self.calls.clear()
        return times


class Timeline:
    """Seconds of the main thread, by what it did until each mark."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds, self.last = device, defaultdict(float), time.perf_counter()
        self.part, self.batch = "", 0

    def mark(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last, self.part = now, part

    def conditions(self, model: pc.Model, entries: Sequence[int]) -> tuple[Any, None]:
        """The first thing that is asked for a batch."""
        self.mark("preparing")
        self.batch = len(entries)
        return pc.class_condition(model, list(entries)), None


class TimedProgress(Progress):
    """Learns when the last step of a batch is done, and when its files are with the writer."""

    def __init__(self, folder: ImageFolder, count: int, timeline: Timeline) -> None:
        super().__init__(folder, count, shown=False)
        self.timeline = timeline

    def computing(self, images: float) -> None:
        if images == 0:
            self.timeline.mark("writing")
        elif images == self.timeline.batch:
            if self.timeline.device == "cuda":  # the next thing is a check of the result, which would wait
                torch.cuda.synchronize()
            self.timeline.mark("sampling")


@dataclasses.dataclass(frozen=True)
class TimedFolder(ImageFolder):
    """Learns when a batch is converted: the main thread asks for the name of its first file then."""

    timeline: Timeline

    def file(self, index: int) -> Path:
        if self.timeline.part == "sampling" and threading.current_thread() is threading.main_thread():
            self.timeline.mark("conversion")
        return super().file(index)


@dataclasses.dataclass
class Run:
    """Seconds of a run, of its parts, and of the network's calls by their rows."""

    wall: float
    parts: dict[str, float]
    calls: dict[int, list[float]]

    @property
    def network(self) -> float:
        return sum(map(sum, self.calls.values()))

    @property
    def outside(self) -> float:
        return 1 - self.network / self.wall


def run(job: Job, clock: NetworkClock, path: Path, batch: int, device: str) -> Run:
    """Generate all images of a job into a new folder."""
    clock.take()
    begin, timeline = time.perf_counter(), Timeline(device)
    folder = TimedFolder(path, job.shape, timeline)
    timed = dataclasses.replace(job, conditions=lambda entries: timeline.conditions(job.model, entries))
    with TimedProgress(folder, job.plan.count, timeline) as progress:
        generate_images(timed, folder, job.plan.batches(batch), progress)
    timeline.mark("closing")
    result = Run(time.perf_counter() - begin, timeline.seconds, clock.take())
    result.parts["solver"] = result.parts.pop("sampling") - result.network
    return result


def seconds(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def copy_images(images: ImageFolder, count: int, copies: ImageFolder) -> None:
    """COPIES files, from few images: what is fast needs many to be timed."""
    copies.file(0).parent.mkdir(parents=True)
    for index in range(COPIES):
        shutil.copyfile(images.file(index % count), copies.file(index))


def report_alone(job: Job, images: ImageFolder, path: Path) -> None:
    """What other threads do while the network computes, by itself."""
    indices = range(job.plan.count)
    pixels = [torch.from_numpy(images.read(index)) for index in indices]

    def encode() -> None:
        with Writer() as writer:
            for index, image in enumerate(pixels):
                writer.put(image, path / f"{index}.png", {"index": index})

    noise = seconds(lambda: [pc.unit_noise(job.model, [index], *job.shape[:2]) for index in indices])
    for title, value in {"noise": noise, "PNG files": seconds(encode)}.items():
        write(f"| {title} alone, mostly while the network computes | {1e3 * value / len(pixels):.2f} ms an image |\n")


def report_files(copies: ImageFolder, path: Path | None) -> None:
    """Files that are there: looked at by a resumed run, and put into an archive."""
    check = seconds(lambda: copies.missing(range(COPIES)))
    write(f"| check of {COPIES:,} existing files when a run continues | {check:.2f} s |\n")
    if path is not None:
        archive = seconds(lambda: write_archive(copies, COPIES, path))
        write(f"| archive of {COPIES:,} images | {archive:.2f} s |\n")
        write(f"| archive of {WHOLE:,} images, at this speed | {archive * WHOLE / COPIES:.0f} s |\n")


def start(model: pc.Model, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the command for one image of one step, and of hashing its checkpoint (both: file in the cache)."""
    file = pc.save_checkpoint(model, folder / "network.safetensors")
    with file.open("rb") as content:  # by blocks, as the command does
        digest = hashlib.sha256()
        hashing = seconds(lambda: [digest.update(block) for block in iter(lambda: content.read(2**24), b"")])
    command = [sys.executable, "-m", "pixeldit_core", "evaluate", str(file), "--out", str(folder / "one")]
    command += ["--count", "1", "--unbalanced", "--steps", "1", "--size", str(options.size), "--device", options.device]
    return seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)), hashing


def evaluations() -> tuple[int, int]:
    """Calls of the published settings with guidance and without, counted on a tiny network."""
    model, rows = build_tiny(), []
    model.network.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    pc.sample(
        model, pc.class_condition(model, [1]), size=(16, 16), steps=SETTINGS.steps, solver=SETTINGS.solver,
        cfg=SETTINGS.cfg, timeshift=SETTINGS.timeshift, cfg_interval=SETTINGS.cfg_interval,
    )  # fmt: skip
    return rows.count(2), rows.count(1)


def report_parts(best: Run, count: int) -> None:
    rows = {"in the network": best.network}
    rows |= {title: best.parts.get(part, 0.0) for part, title in PARTS.items()}
    write("| | seconds | share |\n|---|---|---|\n")
    write("".join(f"| {title} | {value:.3f} | {value / best.wall:.2%} |\n" for title, value in rows.items()))
    write(f"| **outside the network** | {best.wall - best.network:.3f} | **{best.outside:.2%}** |\n")
    write(f"\n{count / best.wall:.3f} images/s\n\n| | |\n|---|---|\n")


def report_cost(best: Run, batch: int, count: int) -> float:
    """What the published settings cost at the speed of these calls; seconds for 50,000 images."""
    guided, single = evaluations()
    pair, one = (statistics.median(best.calls[rows]) / batch for rows in (2 * batch, batch))
    network, always = guided * pair + single * one, (guided + single) * pair
    each = network + (best.wall - best.network) / count
    rows = {
        "network evaluations of an image": f"{2 * guided + single} of {2 * (guided + single)}",
        "time of the network that the interval saves": f"{1 - network / always:.1%}",
        "an image with them, at this speed": f"{each:.3f} s",
        f"{WHOLE:,} images on 1 device": f"{WHOLE * each / 3600:,.1f} hours",
        f"{WHOLE:,} images on 8 devices": f"{WHOLE * each / 8 / 3600:,.1f} hours",
    }
    write("".join(f"| {key} | {value} |\n" for key, value in rows.items()))
    return WHOLE * each


def measure(options: argparse.Namespace, folder: Path) -> None:
    model = build(options.variant, options.device, torch.float32)
    steps = dataclasses.replace(SETTINGS, steps=options.steps, size=(options.size, options.size))
    plan = Plan(options.count, tuple(range(model.params.num_classes)))
    job = Job(model, plan, lambda entries: (None, None), steps, autocast=options.device == "cuda")  # type: ignore
    clock, size = NetworkClock(model.network, options.device), options.batch_size
    warm = dataclasses.replace(job, plan=Plan(size, plan.entries), settings=dataclasses.replace(steps, steps=2))
    run(warm, clock, folder / "warm", size, options.device)
    runs = [run(job, clock, folder / str(number), size, options.device) for number in range(options.repeat)]
    best = min(runs, key=lambda each: each.outside)
    report_parts(best, options.count)
    whole = report_cost(best, size, options.count)
    images, copies = (ImageFolder(folder / name, job.shape) for name in ("0", "copies"))
    report_alone(job, images, folder / "alone")
    copy_images(images, options.count, copies)
    report_files(copies, folder / "samples.npz" if options.write_npz else None)
    starting, hashing = start(model, folder, options)
    write(f"| the command for one image of one step | {starting:.1f} s, {starting / whole:.4%} of {WHOLE:,} |\n")
    write(f"| of which hashing the checkpoint | {hashing:.2f} s |\n")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    variants = ["PixelDiT-B", "PixelDiT-L", "PixelDiT-XL"]
    parser.add_argument("--variant", choices=variants, help="default: B on a CPU, XL on a GPU")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--steps", type=int, help="default: 4 on a CPU, the published 100 on a GPU")
    parser.add_argument("--count", type=int, help="images (default: 16 on a CPU, 128 on a GPU)")
    parser.add_argument("--batch-size", type=int, help="default: 8 on a CPU, 32 on a GPU, as of the command at 256")
    parser.add_argument("--repeat", type=int, default=3, help="runs; the smallest share counts (default: 3)")
    parser.add_argument("--write-npz", action="store_true", help="time the .npz file too")
    options = parser.parse_args()
    defaults = {"variant": "PixelDiT-XL", "steps": SETTINGS.steps, "count": 128, "batch_size": 32}
    if options.device == "cpu":
        defaults = {"variant": "PixelDiT-B", "steps": 4, "count": 16, "batch_size": 8}
    vars(options).update({name: getattr(options, name) or value for name, value in defaults.items()})
    if options.count % options.batch_size or options.steps < 4:
        parser.error("--count must be a multiple of --batch-size, and --steps at least 4, some of them unguided")
    cuda = options.device == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads"
    write(
        f"{options.variant}, {options.size} x {options.size}, {options.steps} steps, {options.count} images in batches "
        f"of {options.batch_size}, float32{' with bfloat16 autocast' if cuda else ''}, {options.device} ({name}), "
        f"torch {torch.__version__}\n\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
