"""How far a start moved by 1e-6 ends elsewhere, and what a trajectory may therefore differ between processors.

Two processors round a network's output differently, by some 1e-6 here, and every later state inherits that. So outputs
are compared on recorded states, where nothing is inherited. A whole trajectory is allowed four times what moving its
start by 1e-6, a handful of float32 roundings, was measured to change; between AVX-512, AVX2 and plain kernels at most
as much as that once was seen. A tolerance that the specification suggests stays the upper limit.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOVED = 1e-6


def moved(x: Tensor, seed: int = 0) -> Tensor:
    """`x` with every value 1e-6 higher or lower."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x + MOVED * signs


def allowed(measured: float, suggested: float) -> float:
    """The tolerance of a trajectory that a start moved by 1e-6 was `measured` to change by so much."""
    return min(4 * measured, suggested)


def check_measured(now: float, measured: float) -> None:
    """The number written in a test is what comes out. Roundings, as large as the move, are in it: within a factor of 3.

    A network or solver that is too sensitive, or not at all, has a fault.
    """
    assert measured / 3 < now < measured * 3, f"a start moved by {MOVED} now ends {now:.1e} away, not {measured:.1e}"
