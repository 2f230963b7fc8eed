"""The class-conditional PixelDiT (arXiv 2511.20645, section 3; spec: official, section 2).

Legend: B batch, L patches, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import block_maps, scale_shift
from ...layers.attention import Attention, SelfAttention, scaled_dot_product
from ...layers.embeddings import LabelEmbedder
from ...layers.mlp import SwiGLU
from ...layers.operations import RMS_NORM_EPS, Device, Operations
from ...layers.rope import Move, Rope
from .dual_path import DualPath
from .params import PixelDiTParams


class PatchBlock(nn.Module):
    """A DiT block over patches [B, L, D] with adaLN (spec: official, section 2.2).

    The condition is the same for all blocks, so its silu is applied once, outside.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        attention: Attention,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attn = SelfAttention(width, num_heads, attention=attention, operations=operations, **factory_kwargs)
        self.norm2 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.mlp = SwiGLU(width, hidden, operations=operations, **factory_kwargs)
        self.adaLN_modulation = nn.Sequential(operations.Linear(width, 6 * width, **factory_kwargs))

    def forward(self, s: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = block_maps(self.adaLN_modulation(c))  # each [B, 1, D]
        s = torch.addcmul(s, gate1, self.attn(scale_shift(self.norm1(s), scale1, shift1), rope, **options))
        return torch.addcmul(s, gate2, self.mlp(scale_shift(self.norm2(s), scale2, shift2)))


class PixelDiT(DualPath):
    """Predicts the velocity `image - noise` of a noisy image, from its time and class."""

    params: PixelDiTParams

    def __init__(
        self,
        params: PixelDiTParams,
        *,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory_kwargs: dict[str, Any] = {"operations": operations, "device": device, "dtype": dtype}
        width, heads = params.hidden_size, params.num_groups
        blocks = (
            PatchBlock(width, heads, params.mlp_width, attention=attention, **factory_kwargs)
            for _ in range(params.patch_depth)
        )
        labels = LabelEmbedder(params.num_classes, width, **factory_kwargs)
        super().__init__(params, labels, blocks, attention=attention, **factory_kwargs)

    def forward(self, x: Tensor, time: Tensor, label: Tensor, *, move: Move | None = None, **options: Any) -> Tensor:
        """Velocity of `x`.

        Args:
            x: [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch size.
            time: [B], 0 = noise, 1 = image; kept in float32 for its features.
            label: [B] int64 in 0..num_classes, the last being the null class; or weights of the class table's rows,
                [B, num_classes + 1], to mix classes.
            move: moves the rows and columns of the patches before they are rotated; None = as trained.
            options: passed to the attention function.

        Returns:
            [B, in_channels, H, W].
        """
        rope = self.patch_rope(x, move)
        s = self.embed_patches(x)  # [B, L, D]
        t_emb = self.t_embedder(time, x.dtype)[:, None]  # [B, 1, D]
        c = F.silu(t_emb + self.y_embedder(label, x.dtype)[:, None])  # [B, 1, D]
        (s,) = self.run_blocks(self.patch_blocks, (s,), c, rope, slice(None), **options)  # [B, L, D]
        return self.pixel_pathway(x, s, t_emb, move, **options)
