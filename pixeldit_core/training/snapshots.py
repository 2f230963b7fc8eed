"""Snapshots of power-function averages in files, and checkpoints of averages of any length made from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoints.load import read_weights
from ..checkpoints.save import write
from ..spec import ModelSpec
from .power_ema import fit, gamma_of
from .run_folder import step_name

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
    """Write one average as a checkpoint of its own, in float16: sums of many snapshots average its rounding out."""
    path = folder / f"{step_name(step)}-{length:.3f}.safetensors"
    origin = {"weights": "ema", "step": step, "power_length": length}
    return write(spec, tensors, path, dtype=torch.float16, origin=origin)


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
    folder: Path, length: float, path: Path, step: int | None = None, dtype: torch.dtype | None = None
) -> Reconstruction:
    """Write the average of relative width `length` that ends at `step` (None = the last snapshot's).

    Holds one network in memory.

    Raises:
        ValueError: no snapshots, none at this step, or not of one network; a length that no average has.
    """
    gamma_of(length)  # raises for an impossible length before any file is read
    snapshots = find_snapshots(folder)
    steps = sorted({snapshot.step for snapshot in snapshots})
    step = steps[-1] if step is None else step
    if step not in steps:
        nearest = min(steps, key=lambda other: abs(other - step))
        raise ValueError(f"{folder} has no snapshots of step {step}; the nearest is {nearest}, the last {steps[-1]}.")
    used = [snapshot for snapshot in snapshots if snapshot.step <= step]
    weights, error = fit(
        [snapshot.step for snapshot in used], [gamma_of(snapshot.length) for snapshot in used], step, gamma_of(length)
    )
    origin: dict[str, Any] = {"weights": "ema", "step": step, "power_length": length, "snapshots": len(used)}
    write(read_weights(used[-1].path, "auto").spec, _sum(used, weights), path, dtype=dtype, origin=origin)
    return Reconstruction(path, step, len(used), error)


def _sum(snapshots: list[Snapshot], weights: list[float]) -> dict[str, Tensor]:
    """The weighted sum, tensor by tensor, in float32."""
    with ExitStack() as stack:
        files = [_open(stack, snapshot.path) for snapshot in snapshots]
        names = [sorted(file.keys()) for file in files]
        for snapshot, own in zip(snapshots, names, strict=True):
            if own != names[-1]:
                raise ValueError(f"{snapshot.path} is of another network than {snapshots[-1].path.name}.")
        return {name: _weighted(files, weights, name) for name in names[-1]}


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
