"""Compactly stored weights (fp8, mxfp8, int8) and the way back to plain numbers, one weight at a time.

A linear layer X keeps its numbers in `X.weight`, their scale beside it, and its format in `X.comfy_quant` (bytes of
JSON), in the header's `_quantization_metadata`, or nowhere (spec: layouts, section 5). Only weights are dequantized:
a program that also rounds what flows through the network paints slightly different pictures from the same file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

METADATA = "_quantization_metadata"
FORMATS = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "mxfp8": "mxfp8", "int8_tensorwise": "int8"}

_PACKED = "nvfp4, convrot_w4a4 or asym_w4a8_int8"  # known, not supported
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_STORED = {"fp8": _FP8, "mxfp8": _FP8[:1], "int8": (torch.int8,)}
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_EXPONENTS = (torch.uint8, *filter(None, [getattr(torch, "float8_e8m0fnu", None)]))  # torch 2.7 has a type for them
_SCALES = ("weight_scale", "scale_weight")
_PARTS = (*_SCALES, "weight_scale_2", "input_scale", "scale_input", "comfy_quant")
_FLAG = "scaled_fp8"  # a tensor that says of all float8 weights behind its prefix that they have scales
_BLOCK = 32  # of mxfp8: inputs that share a scale, and what both sides of a matrix are padded to
_LARGEST_JSON = 1 << 16
_ADVICE = "Get the bf16 file and choose fp8_e4m3fn in the loader."

Shapes = Mapping[str, tuple[int, ...]]
Dtypes = Mapping[str, torch.dtype]


def find_quantized(dtypes: Dtypes, shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, str]:
    """The compactly stored weights of a file by name, each with its kind: "fp8", "mxfp8" or "int8".

    The header is enough. Float8 without any scale is "fp8", too.

    Raises:
        ValueError: a format that is known and not supported, or not known; a scale that is missing or misshapen.
    """
    aside, layers, found = companions(dtypes), _layers(metadata.get(METADATA)), {}
    for name in dtypes:
        if name in aside:
            continue
        layer = _layer(name)
        told = None if f"{layer}.comfy_quant" in dtypes else layers.get(layer)  # the layer's own comes first
        if kind := _kind(name, told, dtypes):
            _find_scale(name, kind, dtypes, shapes, told is not None)
            found[name] = kind
    return found


def companions(keys: Iterable[str]) -> set[str]:
    """Names that belong to the quantization of a weight among `keys`, and are no weights of a network themselves."""
    keys = set(keys)
    found = {key for key in keys if key == _FLAG or key.endswith(f".{_FLAG}")}
    for key in keys:
        layer, _, part = key.rpartition(".")
        if part in _PARTS and f"{layer}.weight" in keys:
            found.add(key)
    return found


def is_plain(name: str, keys: Container[str], metadata: Mapping[str, str]) -> bool:
    """Whether a compact weight is just float8: nothing in a file tells of a scale or a format."""
    return not any(key in keys for key in _nearby(name)[1:]) and _layer(name) not in _layers(metadata.get(METADATA))


def real_shapes(shapes: Shapes, quantized: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes without mxfp8's padding, as far as the tensors beside a weight tell.

    A bias tells its rows; the width of the network tells the rows of a gate (`w1`, `w3`), which has no bias, and the
    columns of a modulation, so that one half may be quantized and the other not. Other columns stay padded.
    """
    real = dict(shapes)
    for name, kind in quantized.items():
        if kind != "mxfp8":
            continue
        layer, (rows, columns) = _layer(name), shapes[name]
        width = _length(shapes, re.split(r"p(?:atch|ixel)_blocks\.", layer)[0] + "s_embedder.proj.bias")
        gate = int(2 * int(4 * width) / 3) if layer.endswith((".w1", ".w3")) else 0  # truncated twice, as officially
        for size in (_length(shapes, f"{layer}.bias"), gate):
            rows = size if padded(size) == rows else rows
        if ".adaLN_modulation" in layer and padded(width) == columns:
            columns = width
        real[name] = (rows, columns)
    return real


def _length(shapes: Shapes, name: str) -> int:
    return (*shapes.get(name, ()), 0)[0]


def padded(size: int) -> int:
    """The side of a matrix as mxfp8 stores it."""
    return _up(size, _BLOCK)


def dequantize(
    name: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One weight as plain numbers, computed in float32.

    Args:
        name: one that `find_quantized` finds; its companions lie beside it in `tensors`.
        shape: as the network has it; None = as stored. mxfp8 is cropped to it.

    Raises:
        ValueError: an unreadable description, an unknown format, a missing or misshapen scale, a weight that does not
            fit `shape`, groups that do not divide. Names the tensor.
    """
    stored = tensors[name]
    told, kind, scale = _look_at(name, tensors, metadata)
    if kind is None:
        raise ValueError(f"{name} is {_text(stored.dtype)}, which is not quantized. Read it as it is.")
    found = tuple(stored.shape)
    shape = found if shape is None else tuple(shape)
    if found != shape and (kind != "mxfp8" or found != tuple(map(padded, shape))):
        raise _error(name, f"is {list(found)}, expected {list(shape)} as {kind}")
    value = stored.to(torch.float32)
    if kind == "mxfp8":
        value = _scale_blocks(value, tensors[scale])
    elif scale:
        value.mul_(tensors[scale].to(torch.float32))
    turned = told.get("convrot", False) if told else False
    if type(turned) is not bool:
        raise _error(name, f"has convrot {_shown(turned)}, expected true or false")
    if turned:
        value = _rotate_back(name, kind, value, told.get("convrot_groupsize", 256))
    return value[tuple(map(slice, shape))].to(dtype).contiguous()


def scaled_fp8(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[Tensor, Tensor] | None:
    """A float8 weight as stored and its float32 scale [], for programs that keep both; None for any other weight.

    Raises:
        ValueError: as `dequantize`.
    """
    _, kind, scale = _look_at(name, tensors, metadata)
    return (tensors[name], tensors[scale].to(torch.float32).reshape(())) if kind == "fp8" and scale else None


def _look_at(
    name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, Any] | None, str | None, str | None]:
    """What is told of a weight's format, its kind, and the name of its scale, by the tensors around it."""
    told = _told(name, tensors, metadata)
    near = {key: tensors[key] for key in _nearby(name) if key in tensors}
    dtypes = {key: value.dtype for key, value in near.items()}
    shapes = {key: tuple(value.shape) for key, value in near.items()}
    kind = _kind(name, told, dtypes)
    return told, kind, _find_scale(name, kind, dtypes, shapes, told is not None) if kind else None


def _scale_blocks(value: Tensor, scale: Tensor) -> Tensor:
    """mxfp8: [R, 32 n] times 2^(e - 127) per 32 inputs; the e (E8M0) lie in the cuBLAS 128x4 blocked order."""
    rows, columns = value.shape
    high, wide = scale.shape
    tiles = scale.view(torch.uint8).reshape(high // 128, wide // 4, 32, 4, 4)  # inside: row % 32, row // 32, column
    exponents = tiles.permute(0, 3, 2, 1, 4).reshape(high, wide)[:rows, : columns // _BLOCK]
    factors = torch.exp2(exponents.double() - 127).to(torch.float32)
    return value.view(rows, -1, _BLOCK).mul_(factors[:, :, None]).view(rows, columns)


def _rotate_back(name: str, kind: str, value: Tensor, group: Any) -> Tensor:
    """ConvRot: W = W_rot H, for each group of inputs by itself."""
    sizes = [4**power for power in range(1, 7)]  # H is [group, group]: larger ones are no reason to fill the memory
    if kind != "int8" or type(group) is not int or group not in sizes or value.shape[1] % group:
        raise _error(
            name,
            f"is {kind} {list(value.shape)}, rotated in groups of {_shown(group)}; known is int8 in groups of a power "
            f"of 4 up to {sizes[-1]} that divides the inputs",
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


def _kind(name: str, told: Mapping[str, Any] | None, dtypes: Dtypes) -> str | None:
    """The kind of a weight by its description, or else by its dtype; None = not quantized."""
    dtype = dtypes[name]
    if told is None:
        if dtype in _FP8:
            return "mxfp8" if dtypes.get(f"{_layer(name)}.weight_scale") in _EXPONENTS else "fp8"
        if dtype == torch.int8:
            return "int8"
        if dtype.itemsize == 1 and name.endswith(".weight"):
            raise ValueError(f"{name} is {_text(dtype)}, packed as {_PACKED} is. This is not supported. {_ADVICE}")
        return None
    form = told.get("format")
    if not isinstance(form, str) or form not in FORMATS:
        raise ValueError(
            f"{name} has the format {_shown(form)}, which is not supported; {', '.join(FORMATS)} are. {_ADVICE}"
        )
    if dtype not in _STORED[FORMATS[form]]:
        raise _error(name, f"is {_text(dtype)}, and said to be {form}")
    return FORMATS[form]


def _find_scale(name: str, kind: str, dtypes: Dtypes, shapes: Shapes, told: bool) -> str | None:
    """Name of the scale of a weight, whose shape and dtype are right; None = float8 without one."""
    layer, shape = _layer(name), shapes[name]
    scale = next((key for part in _SCALES if (key := f"{layer}.{part}") in shapes), None)
    if scale is None:
        if kind == "fp8" and not told and is_plain(name, shapes, {}):
            return None
        raise _error(name, f"is {kind} and has no {layer}.weight_scale")
    if kind != "fp8" and (len(shape) != 2 or (kind == "mxfp8" and shape[1] % _BLOCK)):
        raise _error(name, f"is {list(shape)}, which {kind} can not be")
    if f"{layer}.weight_scale_2" in shapes:
        raise _error(name, f"is {kind} and has a second scale, {layer}.weight_scale_2")
    right = math.prod(shapes[scale]) == 1 or (kind == "int8" and shapes[scale] == (shape[0], 1))
    if kind == "mxfp8":
        right = shapes[scale] == (_up(shape[0], 128), _up(shape[1] // _BLOCK, 4))
    if not right or dtypes[scale] not in (_EXPONENTS if kind == "mxfp8" else _PLAIN):
        found = f"{_text(dtypes[scale])} {list(shapes[scale])}"
        raise _error(scale, f"is {found}, which is no scale of {kind} {list(shape)}")
    return scale


def _told(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What the file says of a layer's format: in a tensor beside it, or else in the header."""
    key = f"{_layer(name)}.comfy_quant"
    if key not in tensors:
        return _layers(metadata.get(METADATA)).get(_layer(name))
    if tensors[key].dtype != torch.uint8 or tensors[key].numel() > _LARGEST_JSON:
        raise _error(key, f"is {_text(tensors[key].dtype)} {list(tensors[key].shape)}, expected some bytes of JSON")
    return _parse(bytes(tensors[key].flatten().tolist()), key)


@lru_cache(maxsize=1)  # asked for each weight of a file
def _layers(text: str | None) -> dict[str, dict[str, Any]]:
    """The header's entry, read: format by layer."""
    layers = _parse(text, METADATA).get("layers", {}) if text else {}
    if not isinstance(layers, dict) or not all(isinstance(entry, dict) for entry in layers.values()):
        raise _error(METADATA, "has no dictionary of layers")
    return layers


def _parse(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(name, f"is not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise _error(name, f"is {text[:40]!r}, expected a dictionary in JSON")
    return found


def _nearby(name: str) -> list[str]:
    """A weight, and all names that may tell something of its quantization, in a file or not."""
    pieces = name.split(".")
    flags = [".".join([*pieces[:count], _FLAG]) for count in range(len(pieces))]
    return [name, *(f"{_layer(name)}.{part}" for part in _PARTS), *flags]


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shown(value: Any) -> str:
    """A value that a file tells, for a message: short, whatever it is."""
    return repr(value)[:40] if isinstance(value, str | int | float) else f"of type {type(value).__name__}"


def _error(name: str, what: str) -> ValueError:
    return ValueError(f"{name} {what}. The file is damaged or another kind: get it again, or get the bf16 file.")
