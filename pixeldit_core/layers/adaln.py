"""Adaptive normalization: the two formulas that modulate with maps of a condition (paper, section 3.2).

The maps broadcast over x: per batch row [B, 1, D], per token [B, L, D] or per pixel [B*L, P, C].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .operations import Operations


def modulation(width: int, outputs: int, *, operations: Operations = nn, **factory_kwargs: Any) -> nn.Sequential:
    """A condition [..., D] -> shifts, scales and gates, side by side [..., outputs]."""
    return nn.Sequential(nn.SiLU(), operations.Linear(width, outputs, **factory_kwargs))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift: maps of 0 change nothing."""
    return torch.addcmul(shift, x, scale + 1)


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x * scale + shift: a scale of 1 and a shift of 0 change nothing."""
    return torch.addcmul(shift, x, scale)


def block_maps(maps: Tensor) -> tuple[Tensor, ...]:
    """The maps of a block's two branches, [..., 6*D] -> shift, 1 + scale and gate of each, six times [..., D].

    1 is added to both scales at once; `scale_shift` takes them.
    """
    maps = maps.unflatten(-1, (6, -1))
    shift1, _, gate1, shift2, _, gate2 = maps.unbind(-2)
    scale1, scale2 = (maps[..., 1::3, :] + 1).unbind(-2)
    return shift1, scale1, gate1, shift2, scale2, gate2
