"""The pixel pathway of the x-prediction networks (spec: xpred, section 2).

Every pixel has its own modulation; attention sees a square of pixels compacted into one token.
Legend: B batch, H x W image, N = H*W pixels, P pixel width, D width of the condition, r side of the compacted square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import modulate, modulation, scale_shift
from ...layers.attention import Attention, SelfAttention, scaled_dot_product
from ...layers.chunking import map_rows, unbind_maps
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope
from ...sizes import Size
from .layers import mlp
from .params import XPredParams


class Compress(nn.Module):
    """Pixels [B, N, P] of an image of `size` -> one token for each square of r*r of them: [B, N/r**2, P*r**2]."""

    def __init__(self, width: int, ratio: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = operations.Conv2d(width, width * ratio**2, ratio, stride=ratio, **factory_kwargs)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return _convolve(self.proj, x, size)


class Expand(nn.Module):
    """The inverse shape: a `grid` of tokens [B, N/r**2, P*r**2] -> pixels [B, N, P]."""

    def __init__(self, width: int, ratio: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = operations.ConvTranspose2d(width * ratio**2, width, ratio, stride=ratio, **factory_kwargs)

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        return _convolve(self.proj, x, grid)


def _convolve(convolution: nn.Module, tokens: Tensor, size: Size) -> Tensor:
    """A convolution of tokens in a grid of `size`; in every block, hence no einops."""
    return convolution(tokens.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)


class CompactedAttention(SelfAttention):
    """Attention between squares of pixels: [B, N, P] -> [B, N, P], with `rope` of the grid of squares."""

    def __init__(
        self,
        params: XPredParams,
        *,
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        width, ratio = params.pixel_dim, params.compress_ratio
        super().__init__(
            width * ratio**2,
            params.heads,
            params.dim_head,
            qk_norm=params.pixel_qk_norm,
            attention=attention,
            operations=operations,
            **factory_kwargs,
        )
        self.ratio = ratio
        if ratio > 1:
            self.compress = Compress(width, ratio, operations=operations, **factory_kwargs)
            self.expand = Expand(width, ratio, operations=operations, **factory_kwargs)

    def forward(self, x: Tensor, rope: Rope | None, size: Size, **options: Any) -> Tensor:
        if self.ratio == 1:
            return super().forward(x, rope, **options)
        mixed = super().forward(self.compress(x, size), rope, **options)
        return self.expand(mixed, (size[0] // self.ratio, size[1] // self.ratio))


class PixelBlock(nn.Module):
    """A block over pixels [B, N, P], each modulated by its own condition [B, N, D]."""

    def __init__(
        self,
        params: XPredParams,
        *,
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        width = params.pixel_dim
        self.norm1 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attn = CompactedAttention(params, attention=attention, operations=operations, **factory_kwargs)
        self.norm2 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.ffn = mlp(width, params.pixel_mlp_width, operations=operations, **factory_kwargs)
        self.mlp_cond = modulation(params.dim, 6 * width, operations=operations, **factory_kwargs)

    def forward(self, x: Tensor, z: Tensor, size: Size, rope: Rope, **options: Any) -> Tensor:
        maps = self.mlp_cond(z)  # [B, N, 6*P]
        before, after = maps.split([2 * x.shape[-1], 4 * x.shape[-1]], dim=-1)
        mixed = self.attn(map_pixels(self.pre_attention, x, before), rope, size, **options)
        return map_pixels(self.post_attention, x, mixed, after)

    def pre_attention(self, x: Tensor, maps: Tensor) -> Tensor:
        """Norm and modulation before the compacted attention, pixel by pixel: [rows, P] and maps [rows, 2*P]."""
        scale, shift = unbind_maps(maps.unflatten(-1, (2, -1)))  # not in the order of the patch block
        return scale_shift(self.norm1(x), scale, shift)

    def post_attention(self, x: Tensor, mixed: Tensor, maps: Tensor) -> Tensor:
        """Both residuals, attention's result and the MLP's, pixel by pixel."""
        gate1, scale2, shift2, gate2 = unbind_maps(maps.unflatten(-1, (4, -1)))
        x = torch.addcmul(x, gate1, mixed)
        return torch.addcmul(x, gate2, self.ffn(scale_shift(self.norm2(x), scale2, shift2)))


def map_pixels(function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """function(*tokens) of [B, N, ...], where the pixels do not depend on each other."""
    return map_rows(function, *(part.flatten(0, 1) for part in tokens)).unflatten(0, tokens[0].shape[:2])


class PixelFinalLayer(nn.Module):
    """Pixels [B, N, P], each with its own condition [B, N, D] -> [B, N, channels]."""

    def __init__(self, params: XPredParams, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        width = params.pixel_dim
        self.norm_final = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.linear = operations.Linear(width, params.in_channels, **factory_kwargs)
        self.mlp_cond = modulation(params.dim, 2 * width, operations=operations, **factory_kwargs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return map_pixels(self._project, x, self.mlp_cond(z))

    def _project(self, x: Tensor, maps: Tensor) -> Tensor:
        shift, scale = unbind_maps(maps.unflatten(-1, (2, -1)))
        return self.linear(modulate(self.norm_final(x), shift, scale))
