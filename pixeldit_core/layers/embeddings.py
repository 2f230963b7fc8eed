"""Embeddings of time, class, patches and pixels, and the absolute position table of pixels.

Legend: B batch, L tokens, D width, H x W image, P pixels per patch, C pixel width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .operations import Device, Operations
from .tables import KeptTables

TIME_FEATURES = 256


def time_frequencies(count: int, max_period: float, device: Device = None) -> Tensor:
    """float32 [count], from 1 down to almost 1 / max_period. The last bit of exp differs between processors."""
    index = torch.arange(count, dtype=torch.float32, device=device)
    return torch.exp(-math.log(max_period) * index / count)


def time_features(time: Tensor, dim: int = TIME_FEATURES, tables: KeptTables | None = None) -> Tensor:
    """Sinusoidal features of the network time: [B] -> float32 [B, dim], cosines first.

    Period 10 is the published value for every official model, also where times go up to 1000 (spec: official, 1).
    """
    frequencies = (tables or KeptTables())(time_frequencies, dim // 2, 10.0, time.device)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_1d(length: int, dim: int, device: Device = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Absolute positions of one axis: [length, dim], sines first; `dim` must be even.

    Computed in float64, as in the published models (spec: official, 1).
    """
    # on the CPU, for not every device has float64; but in a graph, a copy from the CPU would forbid CUDA graphs
    on_device = torch.compiler.is_compiling() and torch.device(device or "cpu").type != "mps"
    where, double = device if on_device else "cpu", torch.float64
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=double, device=where) / (dim // 2))
    angles = torch.arange(length, dtype=double, device=where)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float().to(device, dtype)


def sincos_2d(columns: Tensor, rows: Tensor, patch_size: int = 1) -> Tensor:
    """Absolute positions of pixels, patch by patch: [L, P, C], the first half of the channels for the column.

    From those of columns [W, C/2] and rows [H, C/2], whose lengths are multiples of the patch size.
    """
    p, half = patch_size, columns.shape[-1]
    size = (len(rows) // p, len(columns) // p, p, p, half)
    pair = [columns.view(1, -1, 1, p, half).expand(size), rows.view(-1, 1, p, 1, half).expand(size)]
    return torch.cat(pair, dim=-1).view(-1, p * p, 2 * half)


class TimestepEmbedder(nn.Module):
    """Network time [B] -> [B, D]; its `features` [B] -> float32 [B, num_features] are computed in float32."""

    def __init__(
        self,
        width: int,
        num_features: int = TIME_FEATURES,
        features: Callable[[Tensor, int, KeptTables], Tensor] = time_features,
        *,
        operations: Operations = nn,
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.features = features
        self.tables = KeptTables()
        self.mlp = nn.Sequential(
            operations.Linear(num_features, width, **factory_kwargs),
            nn.SiLU(),
            operations.Linear(width, width, **factory_kwargs),
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(self.features(time, self.num_features, self.tables).to(dtype))


def embed_classes(table: nn.Module, label: Tensor) -> Tensor:
    """Rows [B, D] of a table with V rows: for classes, int64 [B]; or mixed, for weights of its rows, float [B, V]."""
    if not label.is_floating_point():
        return table(label)
    rows = table(torch.arange(label.shape[1], device=label.device))
    return label.to(rows) @ rows


class LabelEmbedder(nn.Module):
    """Class [B], or weights [B, num_classes + 1] of the table's rows -> [B, D]; the last row is the null class."""

    def __init__(self, num_classes: int, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.embedding_table = operations.Embedding(num_classes + 1, width, **factory_kwargs)

    def forward(self, label: Tensor, dtype: torch.dtype) -> Tensor:
        return embed_classes(self.embedding_table, label).to(dtype)  # ComfyUI may keep the table in another dtype


class LinearEmbedder(nn.Module):
    """An affine map [..., in_features] -> [..., D] under the key `proj`: of patches, and of pixels."""

    def __init__(self, in_features: int, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(in_features, width, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)
