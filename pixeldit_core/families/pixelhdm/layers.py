"""Layers of PixelHDM: embeddings, gated attention and the patch block (spec: pixelhdm, sections 3.1 to 3.6).

Legend: B batch, S tokens (text, then patches), L patches, P = p*p pixels per patch, D width, h heads, e head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import EPS
from ...layers.attention import Attention
from ...layers.chunking import map_tokens
from ...layers.embeddings import time_frequencies
from ...layers.rope import Rope, apply_rope
from .params import PixelHDMParams

MAX_PERIOD = 10000.0  # of the time's features
ACTIVATIONS = {"sigmoid": torch.sigmoid, "silu": F.silu}


class PatchEmbedder(nn.Module):
    """Pixels of the patches [B, L, P*channels] -> [B, L, D], through a bottleneck."""

    def __init__(self, params: PixelHDMParams, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        values = params.in_channels * params.patch_size**2
        self.proj_down = operations.Linear(values, params.bottleneck, bias=False, **factory)
        self.proj_up = operations.Linear(params.bottleneck, params.hidden_dim, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_up(F.silu(self.proj_down(x)))


class TimeEmbedder(nn.Module):
    """Time [B] in [0, 1] -> [B, D]; its features, sines first, are computed in float32 (spec: pixelhdm, 3.2)."""

    def __init__(self, params: PixelHDMParams, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.num_features = params.time_embed_dim
        self.mlp = nn.Sequential(
            operations.Linear(self.num_features, params.hidden_dim, **factory),
            nn.SiLU(),
            operations.Linear(params.hidden_dim, params.hidden_dim, **factory),
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        frequencies = time_frequencies(self.num_features // 2, MAX_PERIOD, time.device)
        angles = time.float()[:, None] * frequencies * 1000.0
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype))


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), without biases."""

    def __init__(self, width: int, hidden: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.gate_proj = operations.Linear(width, hidden, bias=False, **factory)
        self.up_proj = operations.Linear(width, hidden, bias=False, **factory)
        self.down_proj = operations.Linear(hidden, width, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """Scales what attention gathered [B, S, h*e] by what its input [B, S, D] says: per head, or per channel."""

    def __init__(self, params: PixelHDMParams, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[params.gate_activation]
        gates = params.num_heads if params.gate_type == "headwise" else params.hidden_dim
        self.proj = operations.Linear(params.hidden_dim, gates, bias=params.gate_bias, **factory)

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        gates = self.activation(self.proj(x))
        runs = mixed.unflatten(-1, (gates.shape[-1], -1))  # channels that share a gate: a head's, or each alone
        return (runs * gates[..., None]).flatten(-2)


class GatedAttention(nn.Module):
    """Grouped-query attention with normalized and rotated queries and keys, gated before it leaves: [B, S, D] -> same.

    Each head of keys and values serves a run of consecutive heads of queries (spec: pixelhdm, 3.5).
    """

    def __init__(self, params: PixelHDMParams, *, attention: Attention, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        width, self.head = params.hidden_dim, params.head_dim
        self.group = params.num_heads // params.num_kv_heads
        self.attention = attention
        shared = params.num_kv_heads * self.head
        outputs = {"q_proj": width, "k_proj": shared, "v_proj": shared}
        self.qkv_proj = nn.ModuleDict(
            {name: operations.Linear(width, size, bias=False, **factory) for name, size in outputs.items()}
        )
        self.q_norm = operations.RMSNorm(self.head, eps=EPS, **factory)
        self.k_norm = operations.RMSNorm(self.head, eps=EPS, **factory)
        self.gate = Gate(params, operations=operations, **factory)
        self.out_proj_layer = nn.ModuleDict({"out_proj": operations.Linear(width, width, bias=False, **factory)})

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        q = self.rotated(self.heads("q_proj", x), self.q_norm, rope)  # [B, S, h, e]
        k = self.rotated(self.heads("k_proj", x), self.k_norm, rope)  # [B, S, h/group, e]
        k, v = (part.repeat_interleave(self.group, dim=2) for part in (k, self.heads("v_proj", x)))
        mixed = self.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options)
        return self.out_proj_layer["out_proj"](self.gate(x, mixed))

    def heads(self, name: str, x: Tensor) -> Tensor:
        return self.qkv_proj[name](x).unflatten(-1, (-1, self.head))

    @staticmethod
    def rotated(x: Tensor, norm: nn.Module, rope: Rope) -> Tensor:
        return map_tokens(lambda part, *tables: apply_rope(norm(part), *tables), x, *rope)


class PatchAdaLN(nn.Module):
    """Time [B, D] -> gamma, beta and alpha of both branches, each [B, 1, D], the same for all tokens."""

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.SiLU(), operations.Linear(width, 6 * width, **factory))

    def forward(self, t_emb: Tensor) -> tuple[Tensor, ...]:
        return self.proj(t_emb)[:, None].chunk(6, dim=-1)


class PatchBlock(nn.Module):
    """A block over text and patches [B, S, D], with norms before and behind each branch (spec: pixelhdm, 3.6)."""

    def __init__(self, params: PixelHDMParams, *, attention: Attention, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kit = {"operations": operations, **factory}
        for norm in ("pre_attn_norm", "post_attn_norm", "pre_mlp_norm", "post_mlp_norm"):
            setattr(self, norm, operations.RMSNorm(params.hidden_dim, eps=EPS, **factory))
        self.attention = GatedAttention(params, attention=attention, **kit)
        self.mlp = SwiGLU(params.hidden_dim, params.mlp_width, **kit)
        self.adaln = PatchAdaLN(params.hidden_dim, **kit)
        self.scale = 1 / math.sqrt(2 * params.patch_layers)  # two branches in each block

    def forward(self, x: Tensor, t_emb: Tensor, rope: Rope, **options: Any) -> Tensor:
        gamma1, beta1, alpha1, gamma2, beta2, alpha2 = self.adaln(t_emb)
        mixed = self.attention(entering(self.pre_attn_norm, x, gamma1, beta1), rope, **options)
        x = self.leaving(self.post_attn_norm, x, mixed, alpha1)
        mixed = self.mlp(entering(self.pre_mlp_norm, x, gamma2, beta2))
        return self.leaving(self.post_mlp_norm, x, mixed, alpha2)

    def leaving(self, norm: nn.Module, x: Tensor, mixed: Tensor, alpha: Tensor) -> Tensor:
        return torch.addcmul(x, alpha, norm(mixed), value=self.scale)


def entering(norm: nn.Module, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """gamma * norm(x) + beta: here, unlike in pixel blocks, gamma itself is the scale."""
    return map_tokens(lambda part: torch.addcmul(beta, gamma, norm(part)), x)
