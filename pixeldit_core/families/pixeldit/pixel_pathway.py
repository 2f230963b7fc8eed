"""The pixel pathway that the official networks share (paper, section 3.2; spec: official, section 2.3).

Texture is made here: every pixel is a token with its own modulation, and attention sees the p*p pixels of a patch
compacted into one token (pixel-token compaction).
Legend: B batch, L patches, P = p*p pixels per patch, D width of the patch pathway, C pixel width, A width of the
compacted attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import modulate
from ...layers.attention import Attention, SelfAttention, scaled_dot_product
from ...layers.chunking import map_rows, unbind_maps
from ...layers.embeddings import sincos_1d, sincos_2d
from ...layers.mlp import GeluMLP
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope
from ...layers.tables import KeptTables
from ...sizes import Size


def add_positions(z: Tensor, batch: int, size: Size, patch_size: int, tables: KeptTables) -> Tensor:
    """Pixel tokens [B*L, P, C] of images of `size` with the absolute position of each pixel.

    Only those of the axes are kept: for every pixel they are as large as the tokens of an image.
    """
    height, width = size
    columns, rows = (tables(sincos_1d, length, z.shape[-1] // 2, z.device, z.dtype) for length in (width, height))
    return (z.unflatten(0, (batch, -1)) + sincos_2d(columns, rows, patch_size)).flatten(0, 1)


class PixelBlock(nn.Module):
    """One pixel block: pixel-wise adaLN (paper, section 3.2, figure 2c) around compacted attention and an MLP.

    `post_modulation` modulates the branches' results instead of their inputs, with four maps instead of six
    (spec: official, section 2.4).
    """

    def __init__(
        self,
        width: int,
        pixel_width: int,
        num_pixels: int,
        attention_width: int,
        num_heads: int,
        *,
        post_modulation: bool = False,
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        self.post_modulation = post_modulation
        self.num_maps = 4 if post_modulation else 6
        flat = num_pixels * pixel_width
        self.norm1 = operations.RMSNorm(pixel_width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.compress_to_attn = operations.Linear(flat, attention_width, **factory_kwargs)
        self.attn = SelfAttention(
            attention_width, num_heads, attention=attention, operations=operations, **factory_kwargs
        )
        self.expand_from_attn = operations.Linear(attention_width, flat, **factory_kwargs)
        self.norm2 = operations.RMSNorm(pixel_width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.mlp = GeluMLP(pixel_width, operations=operations, **factory_kwargs)
        self.adaLN_modulation = nn.Sequential(operations.Linear(width, self.num_maps * flat, **factory_kwargs))

    def forward(self, z: Tensor, s_cond: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        # the projection yields, for each pixel, `num_maps` runs of C values
        maps = self.adaLN_modulation(s_cond).view(*z.shape[:2], self.num_maps, -1)
        before, after = maps.split([0, 4] if self.post_modulation else [2, 4], dim=2)
        mixed = self.attend(map_rows(self.pre_attention, z, before), batch, rope, **options)
        return map_rows(self.post_attention, z, mixed, after)

    def pre_attention(self, z: Tensor, maps: Tensor) -> Tensor:
        """Norm and modulation before the compacted attention, row-wise: pixels [rows, P, C], maps [rows, P, n, C]."""
        if self.post_modulation:
            return self.norm1(z)
        shift, scale = unbind_maps(maps)
        return modulate(self.norm1(z), shift, scale)

    def attend(self, z: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        """Attention between patches over their compacted pixels: [B*L, P, C] -> [B*L, P, C]."""
        compact = self.compress_to_attn(z.flatten(1))  # [B*L, A]
        mixed = self.attn(compact.unflatten(0, (batch, -1)), rope, **options)  # [B, L, A]
        return self.expand_from_attn(mixed.flatten(0, 1)).view_as(z)

    def post_attention(self, z: Tensor, mixed: Tensor, maps: Tensor) -> Tensor:
        """Both residuals, attention's result and the MLP's, row-wise."""
        if self.post_modulation:
            scale1, shift1, scale2, shift2 = unbind_maps(maps)
            z = z + modulate(mixed, shift1, scale1)
            return z + modulate(self.mlp(self.norm2(z)), shift2, scale2)
        gate1, shift2, scale2, gate2 = unbind_maps(maps)
        z = torch.addcmul(z, gate1, mixed)
        return torch.addcmul(z, gate2, self.mlp(modulate(self.norm2(z), shift2, scale2)))


class FinalLayer(nn.Module):
    """Pixel tokens [B*L, P, C] -> [B*L, P, channels]."""

    def __init__(self, pixel_width: int, channels: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.norm = operations.RMSNorm(pixel_width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.linear = operations.Linear(pixel_width, channels, **factory_kwargs)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(self.norm(z))
