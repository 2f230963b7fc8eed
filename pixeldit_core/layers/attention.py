"""Multi-head attention over tokens with normalized, rotated queries and keys.

Every layer takes `operations` (Linear, RMSNorm, Embedding, ...: `torch.nn` or ComfyUI's), device and dtype, and does
not initialize weights: a checkpoint fills them, or `training.initialize` does.
Legend: B batch, L tokens, D width, h heads, e head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .adaln import EPS
from .chunking import map_tokens
from .rope import Rope, apply_rope

Attention = Callable[..., Tensor]


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The default attention function: [B, h, L, e] three times -> [B, L, h*e], bidirectional.

    `mask` is boolean, broadcast to [B, h, L, L], and True where a key takes part; None = everywhere. `options` is what
    a caller hands to the network's forward for its own attention function; this one needs none.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def rotated_heads(
    x: Tensor, qkv: nn.Module, q_norm: nn.Module, k_norm: nn.Module, num_heads: int, rope: Rope | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, L, h, e]; queries and keys normalized, then rotated (None = not)."""
    q, k, v = qkv(x).unflatten(-1, (3, num_heads, -1)).unbind(2)
    if rope is None:
        return q_norm(q), k_norm(k), v
    q = map_tokens(lambda part, *tables: apply_rope(q_norm(part), *tables), q, *rope)
    k = map_tokens(lambda part, *tables: apply_rope(k_norm(part), *tables), k, *rope)
    return q, k, v


class SelfAttention(nn.Module):
    """Self-attention with normalized and rotated queries and keys: [B, L, D] -> [B, L, D]."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        attention: Attention = scaled_dot_product,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention = attention
        head = width // num_heads
        self.qkv = operations.Linear(width, 3 * width, bias=False, **factory)
        self.q_norm = operations.RMSNorm(head, eps=EPS, **factory)
        self.k_norm = operations.RMSNorm(head, eps=EPS, **factory)
        self.proj = operations.Linear(width, width, **factory)

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        parts = rotated_heads(x, self.qkv, self.q_norm, self.k_norm, self.num_heads, rope)
        q, k, v = (part.transpose(1, 2) for part in parts)  # each [B, h, L, e]
        return self.proj(self.attention(q, k, v, **options))
