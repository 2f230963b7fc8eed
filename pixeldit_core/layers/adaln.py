"""Adaptive normalization: the two ways of modulating with maps of a condition (paper, section 3.2).

Maps are per batch row [B, 1, D], per token [B, L, D] or per pixel [B*L, P, C], and broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .chunking import map_tokens

EPS = 1e-6  # of every RMSNorm in these networks


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    return torch.addcmul(shift, x, scale + 1)


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x * scale + shift, without the 1."""
    return torch.addcmul(shift, x, scale)


def norm_modulate(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """modulate(norm(x), shift, scale) of [B, L, D] with one shift and scale [B, 1, D] per batch row."""
    return map_tokens(lambda part: modulate(norm(part), shift, scale), x)


def norm_scale_shift(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale_shift(norm(x), scale, shift) of [B, L, D] with one scale and shift [B, 1, D] per batch row."""
    return map_tokens(lambda part: scale_shift(norm(part), scale, shift), x)
