"""The pixel path of the x-prediction networks (spec: xpred, section 2).

Every pixel has a modulation of its own; attention sees a square of pixels compacted into one token.
Legend: B batch, H x W image, N = H*W pixels, P pixel width, D width of the condition, r side of the compacted square.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import EPS, modulate
from ...layers.attention import Attention, scaled_dot_product
from ...layers.chunking import map_tokens, unbind_maps
from ...layers.rope import Rope
from .layers import HeadAttention, mlp, modulation, to_image, to_tokens
from .params import XPredParams


class Compress(nn.Module):
    """Pixels [B, N, P] -> one token for each square of r*r of them: [B, N/r**2, P*r**2]."""

    def __init__(self, width: int, ratio: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Conv2d(width, width * ratio**2, ratio, stride=ratio, **factory)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return to_tokens(self.proj(to_image(x, size)))


class Expand(nn.Module):
    """The way back: [B, N/r**2, P*r**2] -> [B, N, P]."""

    def __init__(self, width: int, ratio: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.ConvTranspose2d(width * ratio**2, width, ratio, stride=ratio, **factory)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return to_tokens(self.proj(to_image(x, grid)))


class CompactedAttention(HeadAttention):
    """Attention between squares of pixels: [B, N, P] -> [B, N, P], with `rope` of the grid of squares."""

    def __init__(self, params: XPredParams, *, attention: Attention = scaled_dot_product, **factory: Any) -> None:
        nn.Module.__init__(self)  # the reference's order of parameters: compress, heads, expand
        self.ratio = params.compress_ratio
        if self.ratio > 1:
            self.compress = Compress(params.pixel_dim, self.ratio, **factory)
        width = params.pixel_dim * self.ratio**2
        self.add_heads(width, params, params.pixel_qk_norm, attention=attention, **factory)
        if self.ratio > 1:
            self.expand = Expand(params.pixel_dim, self.ratio, **factory)

    def forward(self, x: Tensor, size: tuple[int, int], rope: Rope, **options: Any) -> Tensor:
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
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        kit = {"operations": operations, **factory}
        width = params.pixel_dim
        self.norm1 = operations.RMSNorm(width, eps=EPS, **factory)
        self.attn = CompactedAttention(params, attention=attention, **kit)
        self.norm2 = operations.RMSNorm(width, eps=EPS, **factory)
        self.ffn = mlp(width, params.pixel_mlp_width, **kit)
        self.mlp_cond = modulation(params.dim, 6 * width, **kit)

    def forward(self, x: Tensor, z: Tensor, size: tuple[int, int], rope: Rope, **options: Any) -> Tensor:
        maps = self.mlp_cond(z)  # [B, N, 6*P]
        before, after = maps.split([2 * x.shape[-1], 4 * x.shape[-1]], dim=-1)
        mixed = self.attn(map_tokens(self.enter, x, before), size, rope, **options)
        return map_tokens(self.leave, x, mixed, after)

    def enter(self, x: Tensor, maps: Tensor) -> Tensor:
        """What attention compacts. Each pixel by itself, like `leave`."""
        scale, shift = unbind_maps(maps.unflatten(-1, (2, -1)))  # not in the order of the patch block
        return torch.addcmul(shift, self.norm1(x), scale)

    def leave(self, x: Tensor, mixed: Tensor, maps: Tensor) -> Tensor:
        """Adds attention's result, then the MLP's."""
        gate1, scale2, shift2, gate2 = unbind_maps(maps.unflatten(-1, (4, -1)))
        x = torch.addcmul(x, gate1, mixed)
        return torch.addcmul(x, gate2, self.ffn(torch.addcmul(shift2, self.norm2(x), scale2)))


class PixelFinalLayer(nn.Module):
    """Pixels [B, N, P], each with its own condition [B, N, D] -> [B, N, channels]."""

    def __init__(self, params: XPredParams, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        width = params.pixel_dim
        self.norm_final = operations.RMSNorm(width, eps=EPS, **factory)
        self.linear = operations.Linear(width, params.in_channels, **factory)
        self.mlp_cond = modulation(params.dim, 2 * width, operations=operations, **factory)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return map_tokens(self.paint, x, self.mlp_cond(z))

    def paint(self, x: Tensor, maps: Tensor) -> Tensor:
        """Each pixel by itself."""
        shift, scale = unbind_maps(maps.unflatten(-1, (2, -1)))
        return self.linear(modulate(self.norm_final(x), shift, scale))
