"""What the official networks share: patches for the scene, pixels for the texture (paper, section 3).

Legend: B batch, L patches, P = p*p pixels per patch, D width, C pixel width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention, scaled_dot_product
from ...layers.embeddings import LinearEmbedder, TimestepEmbedder
from ...layers.patchify import from_pixel_tokens
from ...layers.rope import Rope, rope_2d
from .pixel_pathway import FinalLayer, PixelBlock, embed_pixels


def check_heads(width: int, heads: int, what: str) -> None:
    """Raises ValueError unless `width` divides into heads that rotary positions fit on."""
    if heads < 1 or width % heads or (width // heads) % 4:
        raise ValueError(
            f"{what} {width} does not divide into {heads} heads of a multiple of 4 channels; the rotary positions need "
            "that."
        )


def check_pixel_path(pixel_hidden_size: int, pixel_depth: int) -> None:
    """Raises ValueError unless there can be a pixel-level pathway."""
    if pixel_hidden_size % 4:
        raise ValueError(f"pixel_hidden_size is {pixel_hidden_size}; it must be a multiple of 4.")
    if pixel_depth < 1:
        raise ValueError(f"pixel_depth is {pixel_depth}; a PixelDiT has at least one pixel block.")


class DualPath(nn.Module):
    """Both ends of a network: embeddings in front, the pixel-level pathway behind; its patch blocks are its own.

    `attention(q, k, v, **options)` takes [B, h, L, e] three times and gives [B, L, h*e].
    """

    def __init__(
        self,
        params: Any,
        *,
        operations: Any = nn,
        attention: Attention = scaled_dot_product,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.params = params
        p, width, pixel_width = params.patch_size, params.hidden_size, params.pixel_hidden_size
        factory = {"operations": operations, "device": device, "dtype": dtype}
        kit = {"attention": attention, **factory}
        self.pixel_embedder = LinearEmbedder(params.in_channels, pixel_width, **factory)
        self.s_embedder = LinearEmbedder(params.in_channels * p * p, width, **factory)
        self.t_embedder = TimestepEmbedder(width, **factory)
        self.y_embedder = self.make_condition_embedder(**factory)
        self.patch_blocks = nn.ModuleList(self.make_patch_block(index, **kit) for index in range(params.patch_depth))
        self.pixel_blocks = nn.ModuleList(
            PixelBlock(
                width,
                pixel_width,
                p * p,
                params.attention_width,
                params.attention_heads,
                post_modulation=params.pit_adaln_post_modulation,
                **kit,
            )
            for _ in range(params.pixel_depth)
        )
        self.final_layer = FinalLayer(pixel_width, params.in_channels, **factory)

    def make_condition_embedder(self, **factory: Any) -> nn.Module:
        raise NotImplementedError

    def make_patch_block(self, index: int, **kit: Any) -> nn.Module:
        raise NotImplementedError

    def embed_patches(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, L, D]; a patch is read channel by channel."""
        p = self.params.patch_size
        return self.s_embedder(F.unfold(x, p, stride=p).transpose(1, 2))

    def patch_rope(self, x: Tensor) -> Rope:
        return self.rope(x, self.params.hidden_size // self.params.num_groups)

    def rope(self, x: Tensor, head: int) -> Rope:
        """Rotary tables of the grid of patches."""
        p = self.params.patch_size
        return rope_2d(x.shape[2] // p, x.shape[3] // p, head, x.device)

    def paint(self, x: Tensor, s: Tensor, t_emb: Tensor, **options: Any) -> Tensor:
        """The pixel-level pathway: from the pixels `x` and the patches `s` [B, L, D] to [B, in_channels, H, W]."""
        params, (batch, _, height, width) = self.params, x.shape
        s_cond = F.silu(t_emb + s).flatten(0, 1)  # [B*L, D]
        rope = self.rope(x, params.attention_width // params.attention_heads)
        z = embed_pixels(self.pixel_embedder, x, params.patch_size, params.use_pixel_abs_pos)  # [B*L, P, C]
        for block in self.pixel_blocks:
            z = block(z, s_cond, batch, rope, **options)  # [B*L, P, C]
        return from_pixel_tokens(self.final_layer(z), height, width, params.patch_size)
