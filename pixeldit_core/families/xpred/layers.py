"""Layers of the x-prediction networks: time, the patch block and the final layer (spec: xpred, sections 1 and 2).

Legend: B batch, S tokens (patches, then registers), L tokens of a grid, D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import modulate, modulation, scale_shift
from ...layers.attention import Attention, SelfAttention, scaled_dot_product
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.patchify import to_image, to_tokens
from ...layers.rope import Rope
from ...sizes import Size
from .params import XPredParams


class Sinusoid(nn.Module):
    """Time [B] in [0, 1] -> float32 [B, D], sines first; frequencies from 1 to exactly 1/10000, both included."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        half = self.width // 2
        index = torch.arange(half, dtype=torch.float32, device=time.device)
        angles = time.float()[:, None] * torch.exp(index * (-math.log(10000.0) / (half - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeMLP(nn.Sequential):
    """Time [B] in [0, 1] -> [B, D] in `dtype`."""

    def __init__(self, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__(
            Sinusoid(width),
            operations.Linear(width, 4 * width, **factory_kwargs),
            nn.SiLU(),
            operations.Linear(4 * width, width, **factory_kwargs),
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        sinusoid, widen, activation, narrow = self
        return narrow(activation(widen(sinusoid(time).to(dtype))))


def mlp(width: int, hidden: int, *, operations: Operations = nn, **factory_kwargs: Any) -> nn.Sequential:
    """Two affine maps with SiLU between them; the third layer is the place of the reference's dropout."""
    return nn.Sequential(
        operations.Linear(width, hidden, **factory_kwargs),
        nn.SiLU(),
        nn.Identity(),
        operations.Linear(hidden, width, **factory_kwargs),
    )


class Block(nn.Module):
    """A block over patches, or over patches and registers alike: [B, S, D] with a condition [B, D] -> [B, S, D].

    Its scales are not added to 1, unlike the final layer's (spec: xpred, section 1).
    """

    def __init__(
        self,
        params: XPredParams,
        *,
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        width = params.dim
        self.norm1 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attn = SelfAttention(
            width,
            params.heads,
            params.dim_head,
            qk_norm=params.qk_norm,
            attention=attention,
            operations=operations,
            **factory_kwargs,
        )
        self.norm2 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.mlp = mlp(width, params.mlp_width, operations=operations, **factory_kwargs)
        self.adaLN_modulation = modulation(width, 6 * width, operations=operations, **factory_kwargs)

    def forward(self, x: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)  # [B, 1, D]
        mixed = self.attn(scale_shift(self.norm1(x), scale1, shift1), rope, **options)
        x = torch.addcmul(x, gate1, mixed)
        return torch.addcmul(x, gate2, self.mlp(scale_shift(self.norm2(x), scale2, shift2)))


class FinalLayer(nn.Module):
    """Patches [B, L, D] and a condition [B, D] -> [B, L, outputs]."""

    def __init__(self, width: int, outputs: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.norm_final = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.linear = operations.Linear(width, outputs, **factory_kwargs)
        self.adaLN_modulation = modulation(width, 2 * width, operations=operations, **factory_kwargs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def add_positions(x: Tensor, table: Tensor, grid: Size) -> Tensor:
    """[B, L, D] plus a learned table [1, g*g, D], stretched to another grid of tokens (spec: xpred, section 1)."""
    side = math.isqrt(table.shape[1])
    if grid != (side, side):
        square = to_image(table.to(x.device, torch.float32), side, side)
        table = to_tokens(F.interpolate(square, grid, mode="bicubic", align_corners=False))
    return x + table.to(x)
