"""The class-conditional PixelDiT (arXiv 2511.20645, section 3; spec: official, section 2).

Legend: B batch, L patches, P = p*p pixels per patch, D width, C pixel width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import EPS, norm_modulate
from ...layers.attention import Attention, SelfAttention
from ...layers.embeddings import LabelEmbedder
from ...layers.mlp import SwiGLU, swiglu_size
from ...layers.rope import Rope
from ..normalization import expand_normalization
from .dual_path import DualPath, check_heads, check_pixel_path


@dataclass(frozen=True)
class PixelDiTParams:
    """Sizes of a class-conditional PixelDiT; names are the official constructor's.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_size: int  #                        D, width of the patch pathway
    num_groups: int  #                         attention heads of the patch pathway
    patch_depth: int  #                        patch blocks
    pixel_depth: int  #                        pixel blocks
    patch_size: int = 16  #                    p
    pixel_hidden_size: int = 16  #             C, width of a pixel token
    num_classes: int = 1000  #                 without the null class
    in_channels: int = 3
    mlp_hidden_size: int | None = None  #      of the SwiGLU; None = the published rule
    pixel_attn_hidden_size: int | None = None  # width of the compacted attention; None = hidden_size
    pixel_num_groups: int | None = None  #     its heads; None = num_groups
    use_pixel_abs_pos: bool = True
    pit_adaln_post_modulation: bool = False
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_groups, "hidden_size")
        check_heads(self.attention_width, self.attention_heads, "pixel_attn_hidden_size")
        check_pixel_path(self.pixel_hidden_size, self.pixel_depth)
        expand_normalization(self)

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_size or swiglu_size(self.hidden_size)

    @property
    def attention_width(self) -> int:
        return self.pixel_attn_hidden_size or self.hidden_size

    @property
    def attention_heads(self) -> int:
        return self.pixel_num_groups or self.num_groups


class PatchBlock(nn.Module):
    """A DiT block over patches with adaLN; the silu of the condition was applied once, outside."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        attention: Attention,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.RMSNorm(width, eps=EPS, **factory)
        self.attn = SelfAttention(width, num_heads, attention=attention, operations=operations, **factory)
        self.norm2 = operations.RMSNorm(width, eps=EPS, **factory)
        self.mlp = SwiGLU(width, hidden, operations=operations, **factory)
        self.adaLN_modulation = nn.Sequential(operations.Linear(width, 6 * width, **factory))

    def forward(self, s: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)  # each [B, 1, D]
        s = torch.addcmul(s, gate1, self.attn(norm_modulate(self.norm1, s, shift1, scale1), rope, **options))
        return torch.addcmul(s, gate2, self.mlp(norm_modulate(self.norm2, s, shift2, scale2)))


class PixelDiT(DualPath):
    """Predicts the velocity `image - noise` of a noisy image, from its time and class."""

    def make_condition_embedder(self, **factory: Any) -> LabelEmbedder:
        return LabelEmbedder(self.params.num_classes, self.params.hidden_size, **factory)

    def make_patch_block(self, index: int, **kit: Any) -> PatchBlock:
        return PatchBlock(self.params.hidden_size, self.params.num_groups, self.params.mlp_width, **kit)

    def forward(self, x: Tensor, time: Tensor, label: Tensor, **options: Any) -> Tensor:
        """Velocity of `x`.

        Args:
            x: [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch size.
            time: [B], 0 = noise, 1 = image; kept in float32 for its features.
            label: [B] int64 in 0..num_classes, the last being no class.
            options: handed to the attention function.

        Returns:
            [B, in_channels, H, W].
        """
        rope = self.patch_rope(x)
        s = self.embed_patches(x)  # [B, L, D]
        t_emb = self.t_embedder(time, x.dtype)[:, None]  # [B, 1, D]
        c = F.silu(t_emb + self.y_embedder(label, x.dtype)[:, None])  # [B, 1, D]
        for block in self.patch_blocks:
            s = block(s, c, rope, **options)  # [B, L, D]
        return self.paint(x, s, t_emb, **options)
