"""Blocks of the text-to-image PixelDiT over patches and text (MM-DiT; spec: official, section 3).

Patches and text tokens attend to each other in every block, each stream with weights of its own: `_x` (`_img`) are the
patches', `_y` (`_txt`) the text's. Legend: B batch, L patches, T text tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import block_maps, scale_shift
from ...layers.attention import Attention, head_norm, normalized_heads
from ...layers.mlp import SwiGLU
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope, rotate


class JointAttention(nn.Module):
    """One softmax over [text, patches]: patches [B, L, D] and text [B, T, D] -> results for both.

    `rope` is that of [text, patches].

    Where the text is not updated, only patches query, and its result is None.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        updates_text: bool,
        attention: Attention,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.updates_text = updates_text
        self.attention = attention
        head_dim = width // num_heads
        self.qkv_x = operations.Linear(width, 3 * width, bias=False, **factory_kwargs)
        self.q_norm_x = head_norm("rmsnorm", head_dim, operations=operations, **factory_kwargs)
        self.k_norm_x = head_norm("rmsnorm", head_dim, operations=operations, **factory_kwargs)
        self.proj_x = operations.Linear(width, width, **factory_kwargs)
        self.qkv_y = operations.Linear(width, 3 * width, bias=False, **factory_kwargs)
        self.q_norm_y = head_norm("rmsnorm", head_dim, operations=operations, **factory_kwargs)
        self.k_norm_y = head_norm("rmsnorm", head_dim, operations=operations, **factory_kwargs)
        self.proj_y = operations.Linear(width, width, **factory_kwargs)

    def forward(self, s: Tensor, y: Tensor, rope: Rope, **options: Any) -> tuple[Tensor, Tensor | None]:
        patches = normalized_heads(s, self.qkv_x, self.q_norm_x, self.k_norm_x, self.num_heads)
        text = normalized_heads(y, self.qkv_y, self.q_norm_y, self.k_norm_y, self.num_heads)
        q, k, v = zip(text, patches, strict=True)
        q, k, v = (part.transpose(1, 2) for part in (*rotate(q, k, rope), torch.cat(v, dim=1)))
        length = y.shape[1]
        if not self.updates_text:
            return self.proj_x(self.attention(q[:, :, length:], k, v, **options)), None
        mixed = self.attention(q, k, v, **options)  # [B, T + L, D]
        return self.proj_x(mixed[:, length:]), self.proj_y(mixed[:, :length])


class JointBlock(nn.Module):
    """A block over patches and text; both are modulated from the same condition [B, 1, D], by maps of their own."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        updates_text: bool,
        attention: Attention,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        self.norm_x1 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.norm_y1 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.norm_x2 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.norm_y2 = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attn = JointAttention(
            width, num_heads, updates_text=updates_text, attention=attention, operations=operations, **factory_kwargs
        )
        self.mlp_x = SwiGLU(width, hidden, operations=operations, **factory_kwargs)
        self.mlp_y = SwiGLU(width, hidden, operations=operations, **factory_kwargs)
        self.adaLN_modulation_img = nn.Sequential(operations.Linear(width, 6 * width, **factory_kwargs))
        self.adaLN_modulation_txt = nn.Sequential(operations.Linear(width, 6 * width, **factory_kwargs))

    def forward(self, s: Tensor, y: Tensor, c: Tensor, rope: Rope, **options: Any) -> tuple[Tensor, Tensor]:
        """Both streams; where the block does not update the text, it comes back as it was."""
        shift1, scale1, gate1, shift2, scale2, gate2 = block_maps(self.adaLN_modulation_img(c))
        shift_y1, scale_y1, gate_y1, shift_y2, scale_y2, gate_y2 = block_maps(self.adaLN_modulation_txt(c))
        mixed_s, mixed_y = self.attn(
            scale_shift(self.norm_x1(s), scale1, shift1),
            scale_shift(self.norm_y1(y), scale_y1, shift_y1),
            rope,
            **options,
        )
        s = torch.addcmul(s, gate1, mixed_s)
        s = torch.addcmul(s, gate2, self.mlp_x(scale_shift(self.norm_x2(s), scale2, shift2)))
        if mixed_y is None:
            return s, y
        y = torch.addcmul(y, gate_y1, mixed_y)
        y = torch.addcmul(y, gate_y2, self.mlp_y(scale_shift(self.norm_y2(y), scale_y2, shift_y2)))
        return s, y
