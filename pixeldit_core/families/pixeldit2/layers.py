"""Layers of PixelDiT2: the block and the final layer (spec: pixeldit2, sections 1 and 2.2).

Legend: B batch, S tokens (context tokens, then patches), D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import block_maps, modulate, modulation, scale_shift
from ...layers.attention import Attention, SelfAttention
from ...layers.mlp import SwiGLU
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope


class Block(nn.Module):
    """A block over tokens [B, S, D] with a condition for each token, [B, S, D], or one for all, [B, 1, D]."""

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
        self.adaLN_modulation = modulation(width, 6 * width, operations=operations, **factory_kwargs)

    def forward(self, s: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = block_maps(self.adaLN_modulation(c))
        s = torch.addcmul(s, gate1, self.attn(scale_shift(self.norm1(s), scale1, shift1), rope, **options))
        return torch.addcmul(s, gate2, self.mlp(scale_shift(self.norm2(s), scale2, shift2)))


class FinalLayer(nn.Module):
    """Patches [B, L, D] and a condition [B, L or 1, D] -> [B, L, outputs]."""

    def __init__(self, width: int, outputs: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.linear = operations.Linear(width, outputs, **factory_kwargs)
        self.adaLN_modulation = modulation(width, 2 * width, operations=operations, **factory_kwargs)

    def forward(self, s: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm(s), shift, scale))
