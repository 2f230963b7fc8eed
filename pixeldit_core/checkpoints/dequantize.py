"""Weight-only dequantization, one weight at a time.

A program that also rounds the activations generates slightly different images from the same file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..dtypes import dtype_name
from .descriptions import damaged, short
from .quantized import BLOCK, describe, padded

_GROUPS = [4**power for power in range(1, 7)]  # of ConvRot; larger matrices are no reason to fill the memory


def dequantize(
    name: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One weight as plain numbers, computed in float32.

    Args:
        name: one that `find_quantized` finds; its companions are beside it in `tensors`.
        shape: as the network has it; None = as stored. mxfp8 is cropped to it.

    Raises:
        ValueError: an unreadable description, a format that is not supported, a missing or misshapen scale, a weight
            that does not fit `shape`, groups that do not divide it. Names the tensor.
    """
    stored = tensors[name]
    quantization = describe(name, tensors, metadata)
    if quantization is None:
        raise ValueError(f"{name} is {dtype_name(stored.dtype)}, which is not quantized. Read it as it is.")
    kind, stored_shape = quantization.kind, tuple(stored.shape)
    shape = stored_shape if shape is None else tuple(shape)
    if stored_shape != shape and (kind != "mxfp8" or stored_shape != tuple(map(padded, shape))):
        raise damaged(name, f"is {list(stored_shape)}, expected {list(shape)} as {kind}")
    value = stored.to(torch.float32)
    if quantization.scale is not None:
        scale = tensors[quantization.scale]
        value = _scale_blocks(value, scale) if kind == "mxfp8" else value.mul_(_of_rows(scale))
    declared = quantization.declared or {}
    rotated = declared.get("convrot", False)
    if type(rotated) is not bool:
        raise damaged(name, f"has convrot {short(rotated)}, expected true or false")
    if rotated:
        value = _rotate_back(name, kind, value, declared.get("convrot_groupsize", 256))
    return value[tuple(map(slice, shape))].to(dtype).contiguous()


def scaled_fp8(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[Tensor, Tensor] | None:
    """A float8 weight as stored and its float32 scale [], for programs that keep both; None for any other weight, and
    for one with a scale of each row.

    Raises:
        ValueError: as `dequantize`.
    """
    quantization = describe(name, tensors, metadata)
    if quantization is None or quantization.kind != "fp8" or quantization.scale is None:
        return None
    scale = tensors[quantization.scale]
    return (tensors[name], scale.to(torch.float32).reshape(())) if scale.numel() == 1 else None


def _of_rows(scale: Tensor) -> Tensor:
    """One number, or one for each row: [] or [rows, 1]."""
    scale = scale.to(torch.float32)
    return scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)


def _scale_blocks(value: Tensor, scale: Tensor) -> Tensor:
    """mxfp8: [R, 32 n] times 2^(e - 127) per 32 inputs; the e (E8M0) are in cuBLAS's blocked order, tiles of 128x4."""
    rows, columns = value.shape
    exponents = rearrange(
        scale.view(torch.uint8).flatten(),
        "(tile_row tile_column inner outer column) -> (tile_row outer inner) (tile_column column)",
        tile_row=scale.shape[0] // 128,
        outer=4,
        inner=32,
        column=4,
    )[:rows, : columns // BLOCK]
    factors = torch.exp2(exponents.double() - 127).to(torch.float32)
    blocks = value.view(rows, -1, BLOCK).mul_(factors[:, :, None])
    return blocks.view(rows, columns)


def _rotate_back(name: str, kind: str, value: Tensor, group: Any) -> Tensor:
    """ConvRot: W = W_rot H, for each group of inputs separately."""
    if kind != "int8" or type(group) is not int or group not in _GROUPS or value.shape[1] % group:
        raise damaged(
            name,
            f"is {kind} {list(value.shape)}, rotated in groups of {short(group)}; supported is int8 in groups of a "
            f"power of 4 up to {_GROUPS[-1]} that divides the inputs",
        )
    return (value.view(-1, group) @ _rotation(group)).view(value.shape)


@lru_cache(maxsize=2)
def _rotation(group: int) -> Tensor:
    """H [group, group]: symmetric and orthogonal, a Kronecker power of a 4x4 matrix of signs."""
    base = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    whole = base
    while len(whole) < group:
        whole = torch.kron(whole, base)
    return whole / math.sqrt(group)
