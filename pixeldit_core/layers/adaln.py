"""Adaptive normalization: the two formulas that modulate with maps of a condition (paper, section 3.2).

The maps broadcast over x: per batch row [B, 1, D], per token [B, L, D] or per pixel [B*L, P, C].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .chunking import map_tokens
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


def norm_modulate(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """modulate(norm(x), shift, scale) of tokens [B, L, D] with maps per batch row [B, 1, D] or token [B, L, D]."""
    return _map_norm(modulate, norm, x, shift, scale)


def norm_scale_shift(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale_shift(norm(x), scale, shift) of tokens [B, L, D] with maps per batch row [B, 1, D] or token [B, L, D]."""
    return _map_norm(scale_shift, norm, x, scale, shift)


def _map_norm(formula: Callable[..., Tensor], norm: nn.Module, x: Tensor, *maps: Tensor) -> Tensor:
    if maps[0].shape[-2] == 1:
        return map_tokens(lambda part: formula(norm(part), *maps), x)
    return map_tokens(lambda part, *of_part: formula(norm(part), *of_part), x, *maps)
