"""Layers that the official families share.

Every layer takes `operations` (Linear, RMSNorm, Embedding: `torch.nn` or a host's own), device and dtype, and leaves
its weights as they come: a checkpoint fills them, or `training.initialise` does.
Legend: B batch, L tokens, D width, h heads, e head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import apply_rope, runs_eagerly_on_cpu, time_features

EPS = 1e-6  # of every RMSNorm in the official networks
TIME_FEATURES = 256
TOGETHER = 2**20  # values of a group of tokens

Attention = Callable[..., Tensor]
Rope = tuple[Tensor, Tensor]


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The default attention function: [B, h, L, e] three times -> [B, L, h*e], bidirectional.

    `mask` is boolean, broadcast to [B, h, L, L], and True where a key takes part; None = everywhere. `options` is what
    a caller hands to the network's forward for its own attention function; this one needs none.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    return torch.addcmul(shift, x, scale + 1)


def swiglu_size(width: int, ratio: float = 4.0) -> int:
    """Hidden size of the SwiGLU of a patch block: truncated twice and not rounded to a multiple (32 -> 85)."""
    return int(2 * int(width * ratio) / 3)


class TimestepEmbedder(nn.Module):
    """Network time [B] -> [B, D]."""

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            operations.Linear(TIME_FEATURES, width, **factory),
            nn.SiLU(),
            operations.Linear(width, width, **factory),
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(time_features(time, TIME_FEATURES).to(dtype))


class LabelEmbedder(nn.Module):
    """Class index [B] -> [B, D]; the last of the num_classes + 1 rows stands for no class."""

    def __init__(self, num_classes: int, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.embedding_table = operations.Embedding(num_classes + 1, width, **factory)

    def forward(self, label: Tensor, dtype: torch.dtype) -> Tensor:
        return self.embedding_table(label).to(dtype)  # a host may keep the table in another dtype


class LinearEmbedder(nn.Module):
    """An affine map under the key `proj`: of patches, and of pixels."""

    def __init__(self, in_features: int, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(in_features, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def by_tokens(function: Callable[..., Tensor], x: Tensor, *tables: Tensor) -> Tensor:
    """function(x, *tables) of [B, L, ...] and tables of [..., L, n], where the tokens do not depend on each other.

    On a CPU, many tokens go a group at a time: their float32 intermediates stay in the cache from the first pass over
    them to the last.
    """
    size = max(1, TOGETHER * x.shape[1] // x.numel())
    if x.shape[1] <= size or not runs_eagerly_on_cpu(x):
        return function(x, *tables)
    groups = zip(x.split(size, dim=1), *(table.split(size, dim=-2) for table in tables), strict=True)
    return torch.cat([function(*group) for group in groups], dim=1)


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """modulate(norm(x), shift, scale) of [B, L, D], with one shift and scale [B, 1, D] for all tokens."""
    return by_tokens(lambda part: modulate(norm(part), shift, scale), x)


def rotated_heads(
    x: Tensor, qkv: nn.Module, q_norm: nn.Module, k_norm: nn.Module, num_heads: int, rope: Rope | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, L, h, e]; queries and keys normalised, then rotated (None = not)."""
    q, k, v = qkv(x).unflatten(-1, (3, num_heads, -1)).unbind(2)
    if rope is None:
        return q_norm(q), k_norm(k), v
    q = by_tokens(lambda part, *tables: apply_rope(q_norm(part), *tables), q, *rope)
    k = by_tokens(lambda part, *tables: apply_rope(k_norm(part), *tables), k, *rope)
    return q, k, v


class SelfAttention(nn.Module):
    """Self-attention with normalised and rotated queries and keys: [B, L, D] -> [B, L, D]."""

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


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, width: int, hidden: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.w1 = operations.Linear(width, hidden, bias=False, **factory)
        self.w3 = operations.Linear(width, hidden, bias=False, **factory)
        self.w2 = operations.Linear(hidden, width, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
