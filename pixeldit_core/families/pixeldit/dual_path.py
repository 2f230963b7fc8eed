"""What the official networks share: patches for the scene, pixels for the texture (paper, section 3).

Legend: B batch, L patches, P = p*p pixels per patch, D width, C pixel width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention
from ...layers.blocks import PatchBlocks
from ...layers.embeddings import LinearEmbedder, TimestepEmbedder
from ...layers.operations import Device, Operations
from ...layers.patchify import from_pixel_tokens, to_patch_tokens, to_pixel_tokens
from ...layers.rope import Move, Rope, rope_2d
from ...layers.tables import KeptTables
from .params import DualPathParams
from .pixel_pathway import FinalLayer, PixelBlock, add_positions


class DualPath(PatchBlocks, nn.Module):
    """The embeddings and the pixel pathway around a network's own `y_embedder` and `patch_blocks`.

    `attention(q, k, v, **options)` takes [B, h, L, e] three times and gives [B, L, h*e].
    """

    def __init__(
        self,
        params: DualPathParams,
        y_embedder: nn.Module,
        patch_blocks: Iterable[nn.Module],
        *,
        operations: Operations,
        attention: Attention,
        device: Device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.params = params
        self.tables = KeptTables()
        p, width, pixel_width = params.patch_size, params.hidden_size, params.pixel_hidden_size
        factory_kwargs: dict[str, Any] = {"operations": operations, "device": device, "dtype": dtype}
        self.pixel_embedder = LinearEmbedder(params.in_channels, pixel_width, **factory_kwargs)
        self.s_embedder = LinearEmbedder(params.in_channels * p * p, width, **factory_kwargs)
        self.t_embedder = TimestepEmbedder(width, **factory_kwargs)
        self.y_embedder = y_embedder
        self.patch_blocks = nn.ModuleList(patch_blocks)
        self.pixel_blocks = nn.ModuleList(
            PixelBlock(
                width,
                pixel_width,
                p * p,
                params.attention_width,
                params.attention_heads,
                post_modulation=params.pit_adaln_post_modulation,
                attention=attention,
                **factory_kwargs,
            )
            for _ in range(params.pixel_depth)
        )
        self.final_layer = FinalLayer(pixel_width, params.in_channels, **factory_kwargs)

    def embed_patches(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, L, D]."""
        return self.s_embedder(to_patch_tokens(x, self.params.patch_size))

    def patch_rope(self, x: Tensor, move: Move | None) -> Rope:
        """Rotary table of the patch blocks, for an image [B, in_channels, H, W]."""
        return self.grid_rope(x, self.params.hidden_size // self.params.num_groups, move)

    def grid_rope(self, x: Tensor, head_dim: int, move: Move | None) -> Rope:
        """Rotary table of the grid of patches, for heads of `head_dim` channels."""
        p = self.params.patch_size
        size = (x.shape[2] // p, x.shape[3] // p, head_dim, x.device)
        return self.tables(rope_2d, *size) if move is None else rope_2d(*size, move=move)

    def pixel_pathway(self, x: Tensor, s: Tensor, t_emb: Tensor, move: Move | None, **options: Any) -> Tensor:
        """From the image `x` [B, in_channels, H, W], the patches `s` [B, L, D] and the time [B, 1, D] to an image."""
        params, (batch, _, height, width) = self.params, x.shape
        s_cond = F.silu(t_emb + s).flatten(0, 1)  # [B*L, D]
        rope = self.grid_rope(x, params.attention_width // params.attention_heads, move)
        z = self.pixel_embedder(to_pixel_tokens(x, params.patch_size))  # [B*L, P, C]
        if params.use_pixel_abs_pos:
            z = add_positions(z, batch, (height, width), params.patch_size, self.tables)
        for block in self.pixel_blocks:
            z = block(z, s_cond, batch, rope, **options)  # [B*L, P, C]
        return from_pixel_tokens(self.final_layer(z), height, width, params.patch_size)
