"""Layers of PixelHDM: embeddings, gated attention and the patch block (spec: pixelhdm, sections 3.1 to 3.6).

Legend: B batch, S tokens (text, then patches), L patches, P = p*p pixels per patch, D width, h heads, e head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import scale_shift
from ...layers.attention import Attention
from ...layers.embeddings import time_frequencies
from ...layers.operations import RMS_NORM_EPS, Operations
from ...layers.rope import Rope, rotate
from ...layers.tables import KeptTables
from .params import PixelHDMParams

MAX_PERIOD = 10000.0  # of the time features
ACTIVATIONS = {"sigmoid": torch.sigmoid, "silu": F.silu}


class PatchEmbedder(nn.Module):
    """Pixels of the patches [B, L, P*channels] -> [B, L, D], through a bottleneck (spec: pixelhdm, 3.1)."""

    def __init__(self, params: PixelHDMParams, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        values = params.in_channels * params.patch_size**2
        self.proj_down = operations.Linear(values, params.bottleneck, bias=False, **factory_kwargs)
        self.proj_up = operations.Linear(params.bottleneck, params.hidden_dim, bias=False, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_up(F.silu(self.proj_down(x)))


def time_features(time: Tensor, dim: int, tables: KeptTables) -> Tensor:
    """Sinusoidal features of a time [B] in [0, 1]: float32 [B, dim], sines first (spec: pixelhdm, 3.2)."""
    angles = time.float()[:, None] * tables(time_frequencies, dim // 2, MAX_PERIOD, time.device) * 1000.0
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), without biases."""

    def __init__(self, width: int, hidden: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.gate_proj = operations.Linear(width, hidden, bias=False, **factory_kwargs)
        self.up_proj = operations.Linear(width, hidden, bias=False, **factory_kwargs)
        self.down_proj = operations.Linear(hidden, width, bias=False, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """Scales attention's result [B, S, h*e] by gates of its input [B, S, D]: one per head, or one per channel."""

    def __init__(self, params: PixelHDMParams, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[params.gate_activation]
        gates = params.num_heads if params.gate_type == "headwise" else params.hidden_dim
        self.proj = operations.Linear(params.hidden_dim, gates, bias=params.gate_bias, **factory_kwargs)

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        gates = self.activation(self.proj(x))
        runs = mixed.unflatten(-1, (gates.shape[-1], -1))  # channels that share a gate: a head's, or each alone
        return (runs * gates[..., None]).flatten(-2)


class GatedAttention(nn.Module):
    """Grouped-query attention with normalized and rotated queries and keys, and a gate: [B, S, D] -> [B, S, D].

    Each head of keys and values serves a run of consecutive heads of queries (spec: pixelhdm, 3.5).
    """

    def __init__(
        self, params: PixelHDMParams, *, attention: Attention, operations: Operations = nn, **factory_kwargs: Any
    ) -> None:
        super().__init__()
        width, self.head_dim = params.hidden_dim, params.head_dim
        self.group = params.num_heads // params.num_kv_heads
        self.attention = attention
        shared = params.num_kv_heads * self.head_dim
        self.qkv_proj = nn.ModuleDict(
            {
                "q_proj": operations.Linear(width, width, bias=False, **factory_kwargs),
                "k_proj": operations.Linear(width, shared, bias=False, **factory_kwargs),
                "v_proj": operations.Linear(width, shared, bias=False, **factory_kwargs),
            }
        )
        self.q_norm = operations.RMSNorm(self.head_dim, eps=RMS_NORM_EPS, **factory_kwargs)
        self.k_norm = operations.RMSNorm(self.head_dim, eps=RMS_NORM_EPS, **factory_kwargs)
        self.gate = Gate(params, operations=operations, **factory_kwargs)
        self.out_proj_layer = nn.ModuleDict({"out_proj": operations.Linear(width, width, bias=False, **factory_kwargs)})

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        q, k = self.q_norm(self._heads("q_proj", x)), self.k_norm(self._heads("k_proj", x))
        q, k = rotate([q], [k], rope)  # [B, S, h, e] and [B, S, h/group, e]
        k, v = (part.repeat_interleave(self.group, dim=2) for part in (k, self._heads("v_proj", x)))
        mixed = self.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options)
        return self.out_proj_layer["out_proj"](self.gate(x, mixed))

    def _heads(self, name: str, x: Tensor) -> Tensor:
        return self.qkv_proj[name](x).unflatten(-1, (-1, self.head_dim))


class PatchAdaLN(nn.Module):
    """Time [B, D] -> gamma, beta and alpha of both branches, each [B, 1, D], the same for all tokens."""

    def __init__(self, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.SiLU(), operations.Linear(width, 6 * width, **factory_kwargs))

    def forward(self, t_emb: Tensor) -> tuple[Tensor, ...]:
        return self.proj(t_emb)[:, None].chunk(6, dim=-1)


class PatchBlock(nn.Module):
    """A block over text and patches [B, S, D], with norms before and after each branch (spec: pixelhdm, 3.6)."""

    def __init__(
        self, params: PixelHDMParams, *, attention: Attention, operations: Operations = nn, **factory_kwargs: Any
    ) -> None:
        super().__init__()
        width = params.hidden_dim
        self.pre_attn_norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.post_attn_norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.pre_mlp_norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.post_mlp_norm = operations.RMSNorm(width, eps=RMS_NORM_EPS, **factory_kwargs)
        self.attention = GatedAttention(params, attention=attention, operations=operations, **factory_kwargs)
        self.mlp = SwiGLU(width, params.mlp_width, operations=operations, **factory_kwargs)
        self.adaln = PatchAdaLN(width, operations=operations, **factory_kwargs)
        self.scale = 1 / math.sqrt(2 * params.patch_layers)  # two branches in each block

    def forward(self, x: Tensor, t_emb: Tensor, rope: Rope, **options: Any) -> Tensor:
        gamma1, beta1, alpha1, gamma2, beta2, alpha2 = self.adaln(t_emb)
        mixed = self.attention(scale_shift(self.pre_attn_norm(x), gamma1, beta1), rope, **options)
        x = torch.addcmul(x, alpha1, self.post_attn_norm(mixed), value=self.scale)
        mixed = self.mlp(scale_shift(self.pre_mlp_norm(x), gamma2, beta2))
        return torch.addcmul(x, alpha2, self.post_mlp_norm(mixed), value=self.scale)
