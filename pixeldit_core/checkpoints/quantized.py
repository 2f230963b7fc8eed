"""Quantized weights (fp8, mxfp8, int8) in the header of a file: which there are, of what kind, with what scale.

A linear layer X keeps its numbers in `X.weight`, their scale beside it, and its format in `X.comfy_quant` (bytes of
JSON), in the header's `_quantization_metadata`, or nowhere (spec: layouts, section 5).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dtypes import dtype_name
from ..families import Shapes
from .descriptions import ADVICE, damaged, declared_by, kind_of, layer_of, layers_in
from .encoder_inside import PROJECTION

BLOCK = 32  # of mxfp8: inputs that share a scale, and what both sides of a matrix are padded to

_PACKED = "nvfp4, convrot_w4a4 or asym_w4a8_int8"  # detected, not supported
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_QUANTIZED = (*_FP8, torch.int8)
_STORED = {"fp8": _FP8, "mxfp8": _FP8[:1], "int8": (torch.int8,)}
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_E8M0 = getattr(torch, "float8_e8m0fnu", torch.uint8)  # torch 2.7 has a type for exponents
_SCALES = ("weight_scale", "scale_weight")
_PARTS = (*_SCALES, "weight_scale_2", "input_scale", "scale_input", "comfy_quant")
_ROUNDED_UP = 768  # width of the encoder of that PixelDiT2 whose gates are a multiple of 32 (spec: pixeldit2, 2.3)
_FLAG = "scaled_fp8"  # a tensor that declares scales for all float8 weights below its prefix
_SUPPORTED = {
    "fp8": "one number for the matrix, or one for each of its rows",
    "int8": "one number for the matrix, or one for each of its rows",
    "mxfp8": "exponents for each 32 inputs, in tiles of 128 x 4",
}

Dtypes = Mapping[str, torch.dtype]


@dataclass(frozen=True)
class Quantization:
    """How one weight is quantized."""

    kind: str  #                         "fp8", "mxfp8" or "int8"
    scale: str | None  #                 name of the scale; None = float8 without one
    declared: Mapping[str, Any] | None  # by the file, in `comfy_quant` or the header; None = by its dtype alone


def find_quantized(
    dtypes: Dtypes, shapes: Shapes, metadata: Mapping[str, str], texts: Mapping[str, Tensor] | None = None
) -> dict[str, str]:
    """The quantized weights of a file by name, each with its kind: "fp8", "mxfp8" or "int8".

    What the file declares itself decides first; then dtypes and shapes. Float8 without any scale is "fp8", too.

    Args:
        texts: the file's tensors, of which only the small ones with descriptions are read.

    Raises:
        ValueError: a format that is not supported; a scale that is missing or misshapen.
    """
    texts = texts or {}
    described, layers, kinds = companions(dtypes), layers_in(metadata), {}
    for name in dtypes:
        if name in described:
            continue
        layer = layer_of(name)
        declared = layers.get(layer)
        if f"{layer}.comfy_quant" in dtypes:  # it overrides the header
            declared = declared_by(name, texts, metadata) if f"{layer}.comfy_quant" in texts else None
        if kind := _kind(name, declared, dtypes, shapes):
            _find_scale(name, kind, dtypes, shapes, declared is not None)
            kinds[name] = kind
    _check_widths(kinds, shapes)
    return kinds


def quantized_parts(name: str, weight: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """What lies beside a float8 weight in a file: its scale [], and its format as ComfyUI writes it."""
    form = json.dumps({"format": dtype_name(weight.dtype)})
    layer = layer_of(name)
    return {
        f"{layer}.weight_scale": scale.to(torch.float32).reshape(()),
        f"{layer}.comfy_quant": torch.tensor(list(form.encode()), dtype=torch.uint8),
    }


def describe(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Quantization | None:
    """How a weight is quantized, from the tensors around it; None = not at all.

    Raises:
        ValueError: as `find_quantized`, or a description that is not readable.
    """
    declared = declared_by(name, tensors, metadata)
    near = {key: tensors[key] for key in _nearby(name) if key in tensors}
    dtypes = {key: value.dtype for key, value in near.items()}
    shapes = {key: tuple(value.shape) for key, value in near.items()}
    kind = _kind(name, declared, dtypes, shapes)
    if kind is None:
        return None
    return Quantization(kind, _find_scale(name, kind, dtypes, shapes, declared is not None), declared)


def companions(keys: Iterable[str]) -> set[str]:
    """Names among `keys` that describe the quantization of a weight, and are no weights of a network themselves."""
    keys = set(keys)
    described = {key for key in keys if key == _FLAG or key.endswith(f".{_FLAG}")}
    for key in keys:
        layer, _, part = key.rpartition(".")
        if part in _PARTS and f"{layer}.weight" in keys:
            described.add(key)
    return described


def is_plain(name: str, keys: Container[str], metadata: Mapping[str, str]) -> bool:
    """Whether a weight is float8 and nothing more: the file has neither a scale nor a format for it."""
    return not any(key in keys for key in _nearby(name)[1:]) and layer_of(name) not in layers_in(metadata)


def real_shapes(shapes: Shapes, quantized: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes without mxfp8's padding, as far as the tensors beside a weight determine them.

    A bias determines its rows; the width of the network determines the rows of a gate (`w1`, `w3`), which has no bias,
    and the columns of a modulation, so that one half may be quantized and the other not. Other columns stay padded.
    """
    real = dict(shapes)
    for name, kind in quantized.items():
        if kind != "mxfp8":
            continue
        layer, (rows, columns) = layer_of(name), shapes[name]
        start = re.split(r"p(?:atch|ixel)_blocks\.", layer)[0]
        width = _length(shapes, f"{start}s_embedder.proj.bias")
        gate = int(2 * int(4 * width) / 3) if layer.endswith((".w1", ".w3")) else 0  # truncated twice, as officially
        if shapes.get(start + PROJECTION, ())[-1:] == (_ROUNDED_UP,):
            gate = 0
        for size in (_length(shapes, f"{layer}.bias"), gate):
            rows = size if padded(size) == rows else rows
        if ".adaLN_modulation" in layer and padded(width) == columns:
            columns = width
        real[name] = (rows, columns)
    return real


def padded(size: int) -> int:
    """The side of a matrix as mxfp8 stores it."""
    return _round_up(size, BLOCK)


def _length(shapes: Shapes, name: str) -> int:
    return (*shapes.get(name, ()), 0)[0]


def _kind(name: str, declared: Mapping[str, Any] | None, dtypes: Dtypes, shapes: Shapes) -> str | None:
    """The kind of a weight by its description, or else by its dtype; None = not quantized."""
    dtype = dtypes[name]
    if declared is not None:
        kind = kind_of(name, declared)
        if dtype not in _STORED[kind]:
            raise damaged(name, f"is {dtype_name(dtype)}, but declared as {declared['format']}")
        return kind
    if _is_foreign(name, dtypes, shapes):
        raise ValueError(
            f"{name} is {dtype_name(dtype)}, as another quantizer names its weights, which are not supported. {ADVICE}"
        )
    if dtype in _FP8:
        return "mxfp8" if dtypes.get(f"{layer_of(name)}.weight_scale") in (torch.uint8, _E8M0) else "fp8"
    if dtype == torch.int8:
        return "int8"
    if not dtype.is_floating_point and name.endswith((".weight", ".bias")):
        known = _PACKED if dtype.itemsize == 1 else "packed"
        raise ValueError(f"{name} is {dtype_name(dtype)}, as in {known} files, which are not supported. {ADVICE}")
    return None


def _is_foreign(name: str, dtypes: Dtypes, shapes: Shapes) -> bool:
    """Whether a matrix of small numbers belongs to a layer, but not under the name `weight`."""
    if dtypes[name] not in (*_QUANTIZED, torch.uint8, torch.int32) or len(shapes[name]) < 2:
        return False
    layer, _, part = name.rpartition(".")
    return ("weight" in part or f"{layer}.weight" in dtypes) and part not in ("weight", *_PARTS)


def _find_scale(name: str, kind: str, dtypes: Dtypes, shapes: Shapes, declared: bool) -> str | None:
    """Name of the scale of a weight, of the right shape and dtype; None = float8 without one."""
    layer, shape = layer_of(name), shapes[name]
    scale = next((key for part in _SCALES if (key := f"{layer}.{part}") in shapes), None)
    if scale is None:
        if kind == "fp8" and not declared and is_plain(name, shapes, {}):
            return None
        raise _without_scale(name, kind, declared)
    if kind != "fp8" and (len(shape) != 2 or (kind == "mxfp8" and shape[1] % BLOCK)):
        raise damaged(name, f"is {list(shape)}, which {kind} cannot be")
    if f"{layer}.weight_scale_2" in shapes:
        raise ValueError(
            f"{name} is {kind} and has a second scale, {layer}.weight_scale_2, which is not supported. {ADVICE}"
        )
    right = _is_of_matrix_or_rows(shapes[scale], shape)
    if kind == "mxfp8":
        right = shapes[scale] == (_round_up(shape[0], 128), _round_up(shape[1] // BLOCK, 4))
    if not right or dtypes[scale] not in ((torch.uint8, _E8M0) if kind == "mxfp8" else _PLAIN):
        stored = f"{dtype_name(dtypes[scale])} {list(shapes[scale])}"
        raise ValueError(
            f"{scale} is {stored}, which is no scale of {kind} {list(shape)} that is supported: {_SUPPORTED[kind]}. "
            f"{ADVICE}"
        )
    return scale


def _is_of_matrix_or_rows(scale: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a scale is one number, or one for each output (row) of a matrix [out, in].

    [out] and [out, 1] are always the outputs'. [1, out] is, too, but not of a square matrix: there it may be the
    inputs'.
    """
    if math.prod(scale) == 1:
        return True
    if len(shape) != 2:
        return False
    rows, columns = shape
    return scale in ((rows,), (rows, 1)) or (scale == (1, rows) and rows != columns)


def _without_scale(name: str, kind: str, declared: bool) -> ValueError:
    what = f"is {kind} and has no {layer_of(name)}.weight_scale"
    if declared or kind != "int8":
        return damaged(name, what)
    return ValueError(f"{name} {what}: another quantizer wrote it, in a way that is not supported. {ADVICE}")


def _check_widths(kinds: Mapping[str, str], shapes: Shapes) -> None:
    """Refuse numbers of fewer bits that are packed into bytes: the width of the network shows how many.

    Raises:
        ValueError: such a matrix.
    """
    for name, kind in kinds.items():
        match = re.fullmatch(r"(.*)patch_blocks\.\d+\.attn\.qkv(_[xy])?\.weight", name)
        if kind != "int8" or not match:
            continue
        width = _length(shapes, f"{match[1]}s_embedder.proj.bias")
        for bits in (6, 4, 3, 2):
            if width and shapes[name][1] * 8 == width * bits:
                raise ValueError(
                    f"{name} is int8 {list(shapes[name])}, {bits} bits for each of {width} inputs: weights packed into "
                    f"bytes, which are not supported. {ADVICE}"
                )


def _nearby(name: str) -> list[str]:
    """A weight, and all names that may describe its quantization, in a file or not."""
    pieces = name.split(".")
    flags = [".".join([*pieces[:count], _FLAG]) for count in range(len(pieces))]
    return [name, *(f"{layer_of(name)}.{part}" for part in _PARTS), *flags]


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
