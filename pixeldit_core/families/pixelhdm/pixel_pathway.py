"""The pixel pathway of PixelHDM (spec: pixelhdm, sections 3.8 to 3.10).

Every pixel has its own modulation; attention sees the pixels of a patch compacted into one token.
Legend: B batch, L patches, P = p*p pixels per patch, D width of the patch pathway, C pixel width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import modulate
from ...layers.attention import Attention
from ...layers.chunking import map_rows, unbind_maps
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope
from .layers import GatedAttention, SwiGLU
from .params import PixelHDMParams


class PixelAdaLN(nn.Module):
    """Semantic tokens [B*L, D] -> for each pixel gamma, beta and alpha of both branches: [B*L, P, 6*C].

    `norm`, which both branches share, is the block's to apply.
    """

    def __init__(self, params: PixelHDMParams, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.width = params.pixel_dim
        flat = params.patch_size**2 * self.width
        self.cond_expand = operations.Linear(params.hidden_dim, flat, bias=False, **factory_kwargs)
        self.param_gen = nn.Sequential(nn.SiLU(), operations.Linear(self.width, 6 * self.width, **factory_kwargs))
        self.norm = operations.RMSNorm(self.width, eps=RMS_NORM_EPS, **factory_kwargs)

    def forward(self, s_cond: Tensor) -> Tensor:
        return self.param_gen(self.cond_expand(s_cond).unflatten(-1, (-1, self.width)))


class TokenCompaction(nn.Module):
    """Attention between patches, each compacted into one token: [B*L, P, C] -> [B*L, P, C].

    There is no residual inside (spec: pixelhdm, 3.9).
    """

    def __init__(
        self, params: PixelHDMParams, *, attention: Attention, operations: Operations = nn, **factory_kwargs: Any
    ) -> None:
        super().__init__()
        flat = params.patch_size**2 * params.pixel_dim
        self.compress = operations.Linear(flat, params.hidden_dim, bias=False, **factory_kwargs)
        self.norm = operations.RMSNorm(params.hidden_dim, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attention = GatedAttention(params, attention=attention, operations=operations, **factory_kwargs)
        self.post_norm = operations.RMSNorm(params.hidden_dim, eps=RMS_NORM_EPS, **factory_kwargs)
        self.expand = operations.Linear(params.hidden_dim, flat, bias=False, **factory_kwargs)

    def forward(self, z: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        compact = self.norm(self.compress(z.flatten(1)))  # [B*L, D]
        mixed = self.attention(compact.unflatten(0, (batch, -1)), rope, **options)  # [B, L, D]
        return self.expand(self.post_norm(mixed)).view_as(z)


class PixelBlock(nn.Module):
    """A block over pixel tokens [B*L, P, C], modulated pixel by pixel (spec: pixelhdm, 3.9)."""

    def __init__(self, params: PixelHDMParams, *, attention: Attention, **factory_kwargs: Any) -> None:
        super().__init__()
        self.adaln = PixelAdaLN(params, **factory_kwargs)
        self.compaction = TokenCompaction(params, attention=attention, **factory_kwargs)
        self.mlp = SwiGLU(params.pixel_dim, params.pixel_mlp_width, **factory_kwargs)
        self.scale = 1 / math.sqrt(params.pixel_layers)  # not of twice the blocks, as in patch blocks

    def forward(self, z: Tensor, s_cond: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        maps = self.adaln(s_cond).unflatten(-1, (6, -1))  # [B*L, P, 6, C]
        before, after = maps.split([2, 4], dim=2)
        mixed = self.compaction(map_rows(self.pre_attention, z, before), batch, rope, **options)
        return map_rows(self.post_attention, z, mixed, after)

    def pre_attention(self, z: Tensor, maps: Tensor) -> Tensor:
        """Norm and modulation before the compacted attention, row-wise: pixels [rows, P, C], maps [rows, P, 2, C]."""
        gamma, beta = unbind_maps(maps)
        return modulate(self.adaln.norm(z), beta, gamma)

    def post_attention(self, z: Tensor, mixed: Tensor, maps: Tensor) -> Tensor:
        """Both residuals, attention's result and the MLP's, row-wise; here the MLP has no norm after it."""
        alpha1, gamma2, beta2, alpha2 = unbind_maps(maps)
        z = torch.addcmul(z, alpha1, mixed, value=self.scale)
        return torch.addcmul(z, alpha2, self.mlp(modulate(self.adaln.norm(z), beta2, gamma2)), value=self.scale)
