"""Multi-head attention over tokens with normalized, rotated queries and keys.

Legend: B batch, L tokens, D width, h heads, e head size.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from .operations import RMS_NORM_EPS, Operations
from .rope import Rope, rotate

LAYER_NORM_EPS = 1e-5
QKNorm = Literal["", "rmsnorm", "layernorm"]


class Attention(Protocol):
    """Queries, keys and values, each [B, h, L, e] -> [B, L, h*e].

    `options` are a caller's own, passed through the network's forward, and `mask` where a network has one: boolean,
    broadcast to [B, h, L, L], True where a key takes part.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, **options: Any) -> Tensor: ...


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The default attention function, bidirectional; of the options it needs `mask` alone (None = no padding)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def normalized_heads(
    x: Tensor, qkv: nn.Module, q_norm: nn.Module, k_norm: nn.Module, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B, L, D] -> queries, keys and values [B, L, h, e]; queries and keys normalized."""
    q, k, v = qkv(x).unflatten(-1, (3, num_heads, -1)).unbind(2)
    return q_norm(q), k_norm(k), v


def head_norm(kind: QKNorm, head_dim: int, *, operations: Operations = nn, **factory_kwargs: Any) -> nn.Module:
    """The norm of queries or keys over the channels of a head, shared by all heads; "" = none."""
    if kind == "rmsnorm":
        return operations.RMSNorm(head_dim, eps=RMS_NORM_EPS, **factory_kwargs)
    if kind == "layernorm":
        return operations.LayerNorm(head_dim, eps=LAYER_NORM_EPS, **factory_kwargs)
    return nn.Identity()


class SelfAttention(nn.Module):
    """Self-attention with normalized and rotated queries and keys: [B, L, D] -> [B, L, D].

    `head_dim` None = the heads divide the width; else they need not add up to it.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_dim: int | None = None,
        *,
        qk_norm: QKNorm = "rmsnorm",
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        head_dim = head_dim or width // num_heads
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.attention = attention
        self.qkv = operations.Linear(width, 3 * inner, bias=False, **factory_kwargs)
        self.q_norm = head_norm(qk_norm, head_dim, operations=operations, **factory_kwargs)
        self.k_norm = head_norm(qk_norm, head_dim, operations=operations, **factory_kwargs)
        self.proj = operations.Linear(inner, width, **factory_kwargs)

    def forward(self, x: Tensor, rope: Rope | None, **options: Any) -> Tensor:
        q, k, v = normalized_heads(x, self.qkv, self.q_norm, self.k_norm, self.num_heads)
        q, k, v = (part.transpose(1, 2) for part in (*rotate([q], [k], rope), v))  # each [B, h, L, e]
        return self.proj(self.attention(q, k, v, **options))
