"""The pixel pathway of PixelHDM (spec: pixelhdm, sections 3.8 to 3.10).

Every pixel has a modulation of its own; attention sees the pixels of a patch compacted into one token.
Legend: B batch, L patches, P = p*p pixels per patch, D width of the patch pathway, C pixel width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import EPS, modulate
from ...layers.attention import Attention
from ...layers.chunking import map_rows, unbind_maps
from ...layers.rope import Rope
from .layers import GatedAttention, SwiGLU
from .params import PixelHDMParams


class PixelAdaLN(nn.Module):
    """Semantic tokens [B*L, D] -> for each pixel gamma, beta and alpha of both branches: [B*L, P, 6*C].

    `norm`, which both branches share, is the block's to apply.
    """

    def __init__(self, params: PixelHDMParams, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.width = params.pixel_dim
        flat = params.patch_size**2 * self.width
        self.cond_expand = operations.Linear(params.hidden_dim, flat, bias=False, **factory)
        self.param_gen = nn.Sequential(nn.SiLU(), operations.Linear(self.width, 6 * self.width, **factory))
        self.norm = operations.RMSNorm(self.width, eps=EPS, **factory)

    def forward(self, s_cond: Tensor) -> Tensor:
        return self.param_gen(self.cond_expand(s_cond).unflatten(-1, (-1, self.width)))


class TokenCompaction(nn.Module):
    """Attention between patches, each compacted into one token: [B*L, P, C] -> [B*L, P, C].

    There is no residual inside (spec: pixelhdm, 3.9).
    """

    def __init__(self, params: PixelHDMParams, *, attention: Attention, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        flat = params.patch_size**2 * params.pixel_dim
        self.compress = operations.Linear(flat, params.hidden_dim, bias=False, **factory)
        self.norm = operations.RMSNorm(params.hidden_dim, eps=EPS, **factory)
        self.attention = GatedAttention(params, attention=attention, operations=operations, **factory)
        self.post_norm = operations.RMSNorm(params.hidden_dim, eps=EPS, **factory)
        self.expand = operations.Linear(params.hidden_dim, flat, bias=False, **factory)

    def forward(self, z: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        compact = self.norm(self.compress(z.flatten(1)))  # [B*L, D]
        mixed = self.attention(compact.unflatten(0, (batch, -1)), rope, **options)  # [B, L, D]
        return self.expand(self.post_norm(mixed)).view_as(z)


class PixelBlock(nn.Module):
    """A block over pixel tokens [B*L, P, C], modulated pixel by pixel (spec: pixelhdm, 3.9)."""

    def __init__(self, params: PixelHDMParams, **kit: Any) -> None:
        super().__init__()
        factory = {name: value for name, value in kit.items() if name != "attention"}
        self.adaln = PixelAdaLN(params, **factory)
        self.compaction = TokenCompaction(params, **kit)
        self.mlp = SwiGLU(params.pixel_dim, params.pixel_mlp_width, **factory)
        self.scale = 1 / math.sqrt(params.pixel_layers)  # not of twice the blocks, as in patch blocks

    def forward(self, z: Tensor, s_cond: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        maps = self.adaln(s_cond).unflatten(-1, (6, -1))  # [B*L, P, 6, C]
        before, after = maps.split([2, 4], dim=2)
        mixed = self.compaction(map_rows(self.enter, z, before), batch, rope, **options)
        return map_rows(self.leave, z, mixed, after)

    def enter(self, z: Tensor, maps: Tensor) -> Tensor:
        """What attention compacts. Each row by itself, like `leave`."""
        gamma, beta = unbind_maps(maps)
        return modulate(self.adaln.norm(z), beta, gamma)

    def leave(self, z: Tensor, mixed: Tensor, maps: Tensor) -> Tensor:
        """Adds attention's result, then the MLP's, which has no norm behind it."""
        alpha1, gamma2, beta2, alpha2 = unbind_maps(maps)
        z = torch.addcmul(z, alpha1, mixed, value=self.scale)
        return torch.addcmul(z, alpha2, self.mlp(modulate(self.adaln.norm(z), beta2, gamma2)), value=self.scale)
