"""The pixel-level pathway that the official networks share (paper section 3.2).

Texture is made here: every pixel is a token with its own modulation, and attention sees the p*p pixels of a patch
compacted into one token (pixel-token compaction).
Legend: B batch, L patches, P = p*p pixels per patch, D width of the patch pathway, C pixel width, A width of the
compacted attention.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import EPS, Attention, Rope, SelfAttention, modulate, scaled_dot_product
from .positions import sincos_2d


def to_pixel_tokens(image: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> [B*L, P, C]: patches row-major, pixels row-major inside a patch, channels last."""
    b, c, height, width = image.shape
    p = patch_size
    grid = image.reshape(b, c, height // p, p, width // p, p)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(-1, p * p, c)


def from_pixel_tokens(tokens: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """[B*L, P, C] -> [B, C, H, W], the inverse of `to_pixel_tokens`."""
    p, c = patch_size, tokens.shape[-1]
    grid = tokens.reshape(-1, height // p, width // p, p, p, c)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, c, height, width)


def pixel_positions(height: int, width: int, channels: int, patch_size: int, like: Tensor) -> Tensor:
    """The absolute position table, regrouped to [L, P, C] in the dtype and on the device of `like`."""
    table = sincos_2d(height, width, channels, like.device).to(like.dtype)
    return to_pixel_tokens(table.permute(2, 0, 1)[None], patch_size)


class PixelMLP(nn.Module):
    """Two affine maps with an exact GELU between them."""

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, 4 * width, **factory)
        self.fc2 = operations.Linear(4 * width, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PixelBlock(nn.Module):
    """One pixel-level block: pixel-wise AdaLN (paper section 3.2, figure 2c) around compacted attention and an MLP.

    `post_modulation` modulates the branches' results instead of their inputs (four maps instead of six).
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
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.post_modulation = post_modulation
        self.num_maps = 4 if post_modulation else 6
        flat = num_pixels * pixel_width
        self.norm1 = operations.RMSNorm(pixel_width, eps=EPS, **factory)
        self.compress_to_attn = operations.Linear(flat, attention_width, **factory)
        self.attn = SelfAttention(attention_width, num_heads, attention=attention, operations=operations, **factory)
        self.expand_from_attn = operations.Linear(attention_width, flat, **factory)
        self.norm2 = operations.RMSNorm(pixel_width, eps=EPS, **factory)
        self.mlp = PixelMLP(pixel_width, operations=operations, **factory)
        self.adaLN_modulation = nn.Sequential(operations.Linear(width, self.num_maps * flat, **factory))

    def mix(self, z: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        """Attention between patches over their compacted pixels: [B*L, P, C] -> [B*L, P, C]."""
        compact = self.compress_to_attn(z.flatten(1))  # [B*L, A]
        mixed = self.attn(compact.unflatten(0, (batch, -1)), rope, **options)  # [B, L, A]
        return self.expand_from_attn(mixed.flatten(0, 1)).view_as(z)

    def forward(self, z: Tensor, s_cond: Tensor, batch: int, rope: Rope, **options: Any) -> Tensor:
        # the projection yields, for each pixel, `num_maps` runs of C values
        maps = self.adaLN_modulation(s_cond).view(z.shape[0], z.shape[1], self.num_maps, -1).unbind(2)
        if self.post_modulation:
            scale1, shift1, scale2, shift2 = maps
            z = z + modulate(self.mix(self.norm1(z), batch, rope, **options), shift1, scale1)
            return z + modulate(self.mlp(self.norm2(z)), shift2, scale2)
        shift1, scale1, gate1, shift2, scale2, gate2 = maps
        z = torch.addcmul(z, gate1, self.mix(modulate(self.norm1(z), shift1, scale1), batch, rope, **options))
        return torch.addcmul(z, gate2, self.mlp(modulate(self.norm2(z), shift2, scale2)))


class FinalLayer(nn.Module):
    """Pixel tokens [B*L, P, C] -> [B*L, P, channels]."""

    def __init__(self, pixel_width: int, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.RMSNorm(pixel_width, eps=EPS, **factory)
        self.linear = operations.Linear(pixel_width, channels, **factory)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(self.norm(z))
