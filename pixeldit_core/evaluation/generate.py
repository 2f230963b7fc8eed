"""The images of a plan: batches of a fixed composition, of which only those are computed that are missing."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..images import to_uint8
from ..model import Condition, Model
from ..sampling import sample, unit_noise
from ..settings import SamplingSettings
from .image_folder import ImageFolder
from .plan import Plan
from .progress import Progress
from .writer import Writer

Conditions = Callable[[Sequence[int]], tuple[Condition, Condition | None]]  # of entries of the plan; null: or None


@dataclass(frozen=True)
class Job:
    """Everything that decides an image."""

    model: Model
    plan: Plan
    conditions: Conditions
    settings: SamplingSettings  # with a size
    convention: str = "standard"
    autocast: bool = False  #      matrix products in bfloat16, weights as they are
    compile: bool = False  #       through torch.compile

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        assert self.settings.size is not None, "the size is chosen before"
        return (*self.settings.size, self.model.params.in_channels)


class Prepared(NamedTuple):
    """A batch of which images are missing."""

    indices: range
    missing: list[int]
    noise: Tensor


def generate_images(job: Job, folder: ImageFolder, batches: Iterable[range], progress: Progress) -> None:
    """Make the missing images of these batches.

    A batch of which one image is missing is computed as a whole, so that the image has the bytes it would have had.

    Raises:
        OSError: a file could not be written.
        ValueError: a sampled image is not finite.
    """
    with Writer() as writer:
        for batch in prepare(job, folder, batches):
            pixels = _compute(job, batch, progress)
            for row, index in enumerate(batch.indices):
                if index in batch.missing:
                    values = {"index": index, "entry": job.plan.entry(index), "seed": job.plan.seed(index)}
                    writer.put(pixels[row], folder.file(index), values)
            progress.computing(0)


def prepare(job: Job, folder: ImageFolder, batches: Iterable[range]) -> Iterator[Prepared]:
    """Those batches of which images are missing, with their noise; the next two while the caller computes."""

    def look(indices: range) -> Prepared | None:
        missing = folder.missing(indices)
        if not missing:
            return None
        seeds = [job.plan.seed(index) for index in indices]
        return Prepared(indices, missing, unit_noise(job.model, seeds, *job.shape[:2]))

    ahead: deque[Future[Prepared | None]] = deque()
    with ThreadPoolExecutor(1, "prepare") as pool:
        for indices in batches:
            ahead.append(pool.submit(look, indices))
            if len(ahead) > 2 and (batch := ahead.popleft().result()):
                yield batch
        yield from filter(None, (future.result() for future in ahead))


def _compute(job: Job, batch: Prepared, progress: Progress) -> Tensor:
    """uint8 [B, H, W, C] on the CPU."""
    settings, model = job.settings, job.model
    cond, null = job.conditions([job.plan.entry(index) for index in batch.indices])

    def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
        progress.computing(len(batch.missing) * (i + 1) / settings.steps)

    with _precision(job):
        x = sample(
            model, cond, null, noise=batch.noise, steps=settings.steps, solver=settings.solver, cfg=settings.cfg,
            timeshift=settings.timeshift, cfg_interval=settings.cfg_interval, convention=job.convention,
            compile=job.compile, on_step=on_step,
        )  # fmt: skip
    return to_uint8(model, x, job.convention)


def _precision(job: Job) -> contextlib.AbstractContextManager[object]:
    if not job.autocast:
        return contextlib.nullcontext()
    return torch.autocast(job.model.device.type, torch.bfloat16)
