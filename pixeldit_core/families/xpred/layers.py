"""Layers of the x-prediction networks: time, attention, the patch block and the final layer (spec: xpred, 1 and 2).

Legend: B batch, S tokens (patches, then registers), L tokens of a grid, D width, h heads, e head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import EPS, norm_modulate
from ...layers.attention import Attention, rotated_heads, scaled_dot_product
from ...layers.chunking import map_tokens
from ...layers.rope import Rope
from .params import XPredParams

LAYER_NORM_EPS = 1e-5
# State of an optimizer goes by the order of the parameters, and the reference's blocks with registers have another.
BLOCK = ("norm1", "attn", "norm2", "mlp", "adaLN_modulation")
JOINT_BLOCK = ("norm1", "norm2", "adaLN_modulation", "attn", "mlp")


class Sinusoid(nn.Module):
    """Time [B] in [0, 1] -> float32 [B, D], sines first; frequencies from 1 to exactly 1/10000, both included."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        half = self.width // 2
        index = torch.arange(half, dtype=torch.float32, device=time.device)
        angles = time.float()[:, None] * torch.exp(index * (-math.log(10000.0) / (half - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeMLP(nn.Sequential):
    """Time [B] in [0, 1] -> [B, D] in `dtype`."""

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(
            Sinusoid(width),
            operations.Linear(width, 4 * width, **factory),
            nn.SiLU(),
            operations.Linear(4 * width, width, **factory),
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        sinusoid, widen, activation, narrow = self
        return narrow(activation(widen(sinusoid(time).to(dtype))))


def modulation(width: int, outputs: int, *, operations: Any = nn, **factory: Any) -> nn.Sequential:
    """A condition [..., D] -> shifts, scales and gates, side by side."""
    return nn.Sequential(nn.SiLU(), operations.Linear(width, outputs, **factory))


def mlp(width: int, hidden: int, *, operations: Any = nn, **factory: Any) -> nn.Sequential:
    """Two affine maps with SiLU between them; the third layer is where the reference drops out in training."""
    return nn.Sequential(
        operations.Linear(width, hidden, **factory),
        nn.SiLU(),
        nn.Identity(),
        operations.Linear(hidden, width, **factory),
    )


def head_norm(kind: str, width: int, *, operations: Any = nn, **factory: Any) -> nn.Module:
    """The norm of queries or of keys, shared by all heads; "" = none."""
    if kind == "rmsnorm":
        return operations.RMSNorm(width, eps=EPS, **factory)
    if kind == "layernorm":
        return operations.LayerNorm(width, eps=LAYER_NORM_EPS, **factory)
    return nn.Identity()


class HeadAttention(nn.Module):
    """Self-attention with rotated queries and keys: [B, S, D] -> [B, S, D]. Heads need not add up to the width."""

    def __init__(self, width: int, params: XPredParams, qk_norm: str, **kit: Any) -> None:
        super().__init__()
        self.add_heads(width, params, qk_norm, **kit)

    def add_heads(
        self,
        width: int,
        params: XPredParams,
        qk_norm: str,
        *,
        attention: Attention = scaled_dot_product,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        self.attention, self.num_heads = attention, params.heads
        inner = params.heads * params.dim_head
        self.qkv = operations.Linear(width, 3 * inner, bias=False, **factory)
        self.q_norm = head_norm(qk_norm, params.dim_head, operations=operations, **factory)
        self.k_norm = head_norm(qk_norm, params.dim_head, operations=operations, **factory)
        self.proj = operations.Linear(inner, width, **factory)

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        parts = rotated_heads(x, self.qkv, self.q_norm, self.k_norm, self.num_heads, rope)
        q, k, v = (part.transpose(1, 2) for part in parts)  # each [B, h, S, e]
        return self.proj(self.attention(q, k, v, **options))


class Block(nn.Module):
    """A block over patches, or over patches and registers alike: [B, S, D] with a condition [B, D] -> [B, S, D].

    There is no 1 + before the scale, unlike in the final layer (spec: xpred, section 1).
    """

    def __init__(
        self,
        params: XPredParams,
        *,
        attention: Attention = scaled_dot_product,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        kit = {"operations": operations, **factory}
        width = params.dim
        parts = {
            "norm1": operations.RMSNorm(width, eps=EPS, **factory),
            "attn": HeadAttention(width, params, params.qk_norm, attention=attention, **kit),
            "norm2": operations.RMSNorm(width, eps=EPS, **factory),
            "mlp": mlp(width, params.mlp_width, **kit),
            "adaLN_modulation": modulation(width, 6 * width, **kit),
        }
        for name in JOINT_BLOCK if params.num_registers else BLOCK:
            self.add_module(name, parts[name])

    def forward(self, x: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)  # [B, 1, D]
        mixed = self.attn(scaled(self.norm1, x, shift1, scale1), rope, **options)
        x = torch.addcmul(x, gate1, mixed)
        return torch.addcmul(x, gate2, self.mlp(scaled(self.norm2, x, shift2, scale2)))


def scaled(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) * scale + shift of [B, S, D], with one shift and scale [B, 1, D] for all tokens."""
    return map_tokens(lambda part: torch.addcmul(shift, norm(part), scale), x)


class FinalLayer(nn.Module):
    """Patches [B, L, D] and a condition [B, D] -> [B, L, outputs]."""

    def __init__(self, width: int, outputs: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm_final = operations.RMSNorm(width, eps=EPS, **factory)
        self.linear = operations.Linear(width, outputs, **factory)
        self.adaLN_modulation = modulation(width, 2 * width, operations=operations, **factory)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.linear(norm_modulate(self.norm_final, x, shift, scale))


def add_positions(x: Tensor, table: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, L, D] plus a learned table [1, g*g, D], stretched to another grid of tokens (spec: xpred, section 1)."""
    side = math.isqrt(table.shape[1])
    if grid != (side, side):
        square = to_image(table.to(x.device, torch.float32), (side, side))
        table = to_tokens(F.interpolate(square, grid, mode="bicubic", align_corners=False))
    return x + table.to(x)


def to_tokens(image: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H*W, C], row-major."""
    return image.flatten(2).transpose(1, 2)


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, H*W, C] -> [B, C, H, W], the inverse of `to_tokens`."""
    return tokens.transpose(1, 2).unflatten(2, size)
