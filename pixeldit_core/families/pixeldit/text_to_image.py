"""The text-to-image PixelDiT (arXiv 2511.20645, section 3; spec: official, section 3).

Its patch blocks are joint ones over patches and text; the pixel pathway is the class-conditional network's, with an
attention of another width. Legend: B batch, L patches, T text tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention, scaled_dot_product
from ...layers.operations import RMS_NORM_EPS, Device, Operations
from ...layers.rope import Move, Rope, pad_identity, rope_1d
from .dual_path import DualPath
from .params import PixelDiTT2IParams
from .text_blocks import JointBlock


class TextEmbedder(nn.Module):
    """States of the text encoder [B, T, txt_embed_dim] -> [B, T, D]; its norm is the only one the text gets."""

    def __init__(self, text_width: int, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(text_width, width, **factory_kwargs)
        self.norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)

    def forward(self, text: Tensor) -> Tensor:
        return self.norm(self.proj(text))


class PixelDiTT2I(DualPath):
    """Predicts `noise - image` of a noisy image, from its noise level and a text.

    `full_last_block`: whether the last block also updates the text, which never reaches the image.
    """

    params: PixelDiTT2IParams

    def __init__(
        self,
        params: PixelDiTT2IParams,
        *,
        full_last_block: bool = False,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory_kwargs: dict[str, Any] = {"operations": operations, "device": device, "dtype": dtype}
        blocks = (
            JointBlock(
                params.hidden_size,
                params.num_groups,
                params.mlp_width,
                updates_text=full_last_block or index < params.patch_depth - 1,
                attention=attention,
                **factory_kwargs,
            )
            for index in range(params.patch_depth)
        )
        text = TextEmbedder(params.txt_embed_dim, params.hidden_size, **factory_kwargs)
        super().__init__(params, text, blocks, attention=attention, **factory_kwargs)
        positions = torch.empty(1, params.txt_max_length, params.hidden_size, device=device, dtype=dtype)
        self.y_pos_embedding = nn.Parameter(positions)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, *, move: Move | None = None, **options: Any) -> Tensor:
        """Velocity towards the noise.

        Args:
            x: [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch size.
            time: [B], 1000 times the share of noise; kept in float32 for its features.
            text: [B, T, txt_embed_dim] or [B, 1, T, txt_embed_dim]; tokens beyond txt_max_length are cut. Padding
                takes part, as in training: there is no mask.
            move: moves the rows and columns of the patches before they are rotated; None = as trained.
            options: passed to the attention function.

        Returns:
            [B, in_channels, H, W].
        """
        y = self.embed_text(text.to(x.dtype))  # [B, T, D]
        rope = self.joint_rope(self.patch_rope(x, move), y.shape[1])
        s = self.embed_patches(x)  # [B, L, D]
        t_emb = self.t_embedder(time, x.dtype)[:, None]  # [B, 1, D]
        c = F.silu(t_emb)
        s, _ = self.run_blocks(self.patch_blocks, (s, y), c, rope, slice(None), **options)
        return self.pixel_pathway(x, s, t_emb, move, **options)

    def embed_text(self, text: Tensor) -> Tensor:
        """[B, T, txt_embed_dim] or [B, 1, T, txt_embed_dim] -> [B, T, D], cut, with the learned positions."""
        if text.ndim == 4:
            text = text.squeeze(1)
        y = self.y_embedder(text[:, : self.params.txt_max_length])
        return y + self.y_pos_embedding[:, : y.shape[1]].to(y)  # ComfyUI may keep the table elsewhere

    def joint_rope(self, rope: Rope, length: int) -> Rope:
        """Rotary table of [text, patches], from that of the patches and the number of text tokens."""
        params = self.params
        if not params.use_text_rope:
            return pad_identity(rope, before=length)
        head_dim = params.hidden_size // params.num_groups
        return torch.cat([self.tables(rope_1d, length, head_dim, rope.device, params.text_rope_theta), rope])
