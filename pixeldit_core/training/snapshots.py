"""Snapshots of power-function averages in files, and checkpoints of averages of any length made from them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoints.encoder_choice import INSIDE
from ..checkpoints.load import read_weights
from ..checkpoints.save import with_chosen_encoder, write
from ..spec import ModelSpec
from .power_ema import fit, gamma_of, reachable_lengths
from .run_folder import step_name

LARGEST_ERROR = 0.1  # of a profile: beyond it, an average is of another length than the one asked for
_NAME = re.compile(r"step-(\d+)-(0\.\d+)\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """One average of a run: the profile's relative width and the step that it ends at."""

    path: Path
    step: int
    length: float


@dataclass(frozen=True)
class Reconstruction:
    """What a reconstructed checkpoint was made of."""

    path: Path
    step: int
    count: int  #    snapshots
    error: float  #  of the profile: relative root mean square


def write_snapshot(spec: ModelSpec, tensors: Mapping[str, Tensor], folder: Path, step: int, length: float) -> Path:
    """Write one average as a checkpoint of its own, in float16, or in float32 if a value is too large for that.

    float16 rounds a weight by 2e-4 of it. Sums of snapshots multiply that by the norm of their weights: less than 1
    between the stored lengths and above, 6 at a length of 0.03; so it stays below the rounding of bfloat16 (2e-3), in
    which checkpoints are published.
    """
    short = f"{length:.3f}"
    path = folder / f"{step_name(step)}-{short if float(short) == length else length}.safetensors"
    origin = {"weights": "ema", "step": step, "power_length": length}
    largest = max((value.abs().max().item() for value in tensors.values() if value.numel()), default=0.0)
    dtype = torch.float16 if largest <= torch.finfo(torch.float16).max else torch.float32
    return write(spec, tensors, path, dtype=dtype, origin=origin)


def find_snapshots(folder: Path) -> list[Snapshot]:
    """All complete snapshots of a folder, oldest first.

    Raises:
        ValueError: there are none.
    """
    matches = [(path, _NAME.fullmatch(path.name)) for path in sorted(folder.glob("step-*.safetensors"))]
    found = [Snapshot(path, int(match[1]), float(match[2])) for path, match in matches if match]
    if not found:
        raise ValueError(
            f"{folder} has no snapshots of power-function averages. A run writes them if its recipe has average.power, "
            "such as [0.05, 0.1]."
        )
    return found


def reconstruct(
    folder: Path,
    length: float,
    path: Path,
    step: int | None = None,
    dtype: torch.dtype | None = None,
    encoder: str | Path | None = None,
) -> Reconstruction:
    """Write the average of relative width `length` that ends at `step` (None = the last snapshot's).

    Holds one network in memory. A frozen encoder is not in the snapshots: it comes from `encoder`, a file that has it
    or is it, if that is given.

    Raises:
        ValueError: no snapshots, none at this step, or not of one network; a damaged one; a length that no average has
            or that the snapshots do not give.
    """
    gamma_of(length)  # raises for an impossible length before any file is read
    snapshots = find_snapshots(folder)
    steps = sorted({snapshot.step for snapshot in snapshots})
    step = steps[-1] if step is None else step
    if step not in steps:
        nearest = min(steps, key=lambda other: abs(other - step))
        raise ValueError(f"{folder} has no snapshots of step {step}; the nearest is {nearest}, the last {steps[-1]}.")
    used = [snapshot for snapshot in snapshots if snapshot.step <= step]
    weights, error = _fit(used, step, length)
    origin: dict[str, Any] = {"weights": "ema", "step": step, "power_length": length, "snapshots": len(used)}
    tensors = _sum(used, weights)
    spec = read_weights(used[-1].path, "auto", encoder=INSIDE).spec
    if encoder is not None and spec.family.encoder:
        spec, tensors = with_chosen_encoder(spec, tensors, encoder)
    write(spec, tensors, path, dtype=dtype, origin=origin)
    return Reconstruction(path, step, len(used), error)


def _fit(snapshots: list[Snapshot], step: int, length: float) -> tuple[list[float], float]:
    """Their weights, and the error of the profile."""
    times, gammas = [snapshot.step for snapshot in snapshots], [gamma_of(snapshot.length) for snapshot in snapshots]
    weights, error = fit(times, gammas, step, gamma_of(length))
    if error > LARGEST_ERROR:
        reached = reachable_lengths(times, gammas, step, LARGEST_ERROR)
        ends = (math.ceil(1000 * reached[0]) / 1000, math.floor(1000 * reached[1]) / 1000) if reached else ()
        choice = f"Choose one from {ends[0]:.3f} to {ends[1]:.3f}. " if ends else ""
        raise ValueError(
            f"the {len(times)} snapshots up to step {step} do not give an average of length {length:g}: the error of "
            f"its profile would be {error:.0%}. {choice}A run with a smaller average.snapshot_every gives more lengths."
        )
    return weights, error


def _sum(snapshots: list[Snapshot], weights: list[float]) -> dict[str, Tensor]:
    """The weighted sum, tensor by tensor, in float32."""
    with ExitStack() as stack:
        files = [_open(stack, snapshot.path) for snapshot in snapshots]
        shapes = [{name: file.get_slice(name).get_shape() for name in file.keys()} for file in files]  # noqa: SIM118
        for snapshot, own in zip(snapshots, shapes, strict=True):
            if own != shapes[-1]:
                raise ValueError(
                    f"{snapshot.path} is of another network than {snapshots[-1].path.name}. Move one's away."
                )
        return {name: _weighted(files, weights, name) for name in sorted(shapes[-1])}


def _weighted(files: list[Any], weights: list[float], name: str) -> Tensor:
    total = files[-1].get_tensor(name)
    if not total.is_floating_point():
        return total
    total = torch.zeros(total.shape)
    for file, weight in zip(files, weights, strict=True):
        total.add_(file.get_tensor(name).float(), alpha=weight)
    return total


def _open(stack: ExitStack, path: Path) -> Any:
    try:
        return stack.enter_context(safe_open(path, "pt"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Remove it, and the average is made without it.") from error
