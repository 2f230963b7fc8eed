"""The last bit of exp differs between processors, and angles of up to 1000 make it 6e-5 in a time feature.

On another processor than theirs, the reference programs themselves miss their recorded text-to-image outputs by
more than the tolerance of some cases. The recorded table of time features tells which bits their processor had; with
these frequencies all cases are met with room to spare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def reference_frequencies(table: Path, computed: Tensor) -> Tensor:
    """Of the computed frequencies and their neighbors in float32, those that give the recorded table bit for bit."""
    times = load_file(table / "inputs.safetensors")["t_t2i"]
    recorded = load_file(table / "outputs.safetensors")["emb_t2i"]
    nothing, much = torch.tensor(0.0), torch.tensor(9.0)
    candidates = torch.stack([computed, torch.nextafter(computed, nothing), torch.nextafter(computed, much)])
    angles = times[:, None] * candidates[:, None]  # [3, times, frequencies]
    wrong = torch.cat([angles.cos(), angles.sin()], dim=-1) - recorded
    errors = wrong.abs().unflatten(-1, (2, -1)).amax((1, 2))  # [3, frequencies]
    chosen = candidates[errors.argmin(0), torch.arange(len(computed))]
    assert errors.amin(0).max() < 2e-7, "the table is of other frequencies"
    return chosen


@contextlib.contextmanager
def reference_processor(positions: Any, table: Path) -> Iterator[None]:
    """Inside, `positions.time_frequencies` gives the reference processor's."""
    computed = positions.time_frequencies
    frequencies = reference_frequencies(table, computed(128, 10.0))
    positions.time_frequencies = lambda *arguments: frequencies
    try:
        yield
    finally:
        positions.time_frequencies = computed
