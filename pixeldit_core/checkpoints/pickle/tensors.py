"""Tensors of a pickle: each must lie in its storage, and none is larger than the bytes that are there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ForeignClass, NotPlain, TooLong
from .values import Global, Place, Places, Storage, are_sizes, is_natural

# The kinds of storage that torch writes. Quantized ones are not among them; newer dtypes are stored as bytes.
STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.UntypedStorage": torch.uint8,
}
TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

_MOST_TENSORS = 200_000


def storage(places: Places, reference: Any) -> Storage:
    """The storage of ("storage", type, key, location, elements); older files add a None."""
    parts: tuple[Any, ...] = reference if type(reference) is tuple and 5 <= len(reference) <= 6 else (None,) * 5
    kind, of, key, location, count = parts[:5]
    name = of.name if isinstance(of, Global) else ""
    others = any(part is not None for part in parts[5:])
    if type(kind) is not str or kind != "storage" or name not in STORAGES or others:
        raise NotPlain(f"has a storage of another kind than those of plain tensors ({name[:80] or type(of).__name__})")
    if type(key) is not str or type(location) is not str or not is_natural(count):
        raise NotPlain("has a storage that is not described as torch does it")
    dtype = STORAGES[name]
    made = Storage(key, count * dtype.itemsize, 8 if "Untyped" in name else dtype.itemsize, dtype)
    if places.storages.setdefault(key, made) != made:
        raise NotPlain(f"has two storages of the name {key[:80]!r}")
    return made


def rebuild_v1(places: Places, of: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """torch._utils._rebuild_tensor."""
    return _tensor(places, of, of.dtype if isinstance(of, Storage) else None, offset, size, stride)


def rebuild_v2(places: Places, of: Any, offset: Any, size: Any, stride: Any, *others: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2; the others (gradient or not, hooks, metadata) do not matter here."""
    if not 2 <= len(others) <= 3:
        raise NotPlain("has a tensor that is not described as torch does it")
    return rebuild_v1(places, of, offset, size, stride)


def rebuild_v3(
    places: Places, of: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *metadata: Any
) -> Tensor:
    """torch._utils._rebuild_tensor_v3: numbers of a newer dtype in a storage of bytes."""
    return _tensor(places, of, dtype, offset, size, stride)


def parameter(places: Places, data: Any, *others: Any) -> Tensor:
    """A parameter is its data; so is a tensor that was copied from another device to be saved."""
    if not isinstance(data, Tensor) or len(others) > 3:
        raise NotPlain("has a parameter that is no tensor")
    return data


def from_type(places: Places, function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes of its own, which are not read."""
    name, of = (value.name if isinstance(value, Global) else "" for value in (function, kind))
    if name not in TENSORS or of not in TENSOR_CLASSES:
        raise ForeignClass((name if of in TENSOR_CLASSES else of)[:200] or "something that is no class")
    if type(arguments) is not tuple or len(arguments) > 9:
        raise NotPlain("has a tensor that is not described as torch does it")
    return TENSORS[name](places, *arguments)


def _tensor(places: Places, of: Any, dtype: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A stand-in on "meta" for a tensor, whose place is noted."""
    if not isinstance(of, Storage) or not isinstance(dtype, torch.dtype):
        raise NotPlain("has a tensor that is not described as torch does it")
    if not (is_natural(offset) and are_sizes(size) and are_sizes(stride) and len(size) == len(stride)):
        raise NotPlain("has a tensor whose shape is not readable")
    _check_fits(of, dtype, offset, size, stride)
    if len(places.tensors) >= _MOST_TENSORS:
        raise TooLong(f"more than {_MOST_TENSORS:,} tensors")
    try:
        made = torch.empty_strided(size, stride, dtype=dtype, device="meta")
    except Exception as error:  # of dtypes that this torch only knows by name, and of sizes around an empty one
        raise NotPlain(f"has a tensor of {str(dtype).removeprefix('torch.')} that torch cannot make") from error
    places.tensors[id(made)] = Place(of, dtype, offset, size, stride)
    return made


def _check_fits(of: Storage, dtype: torch.dtype, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count, last = count * length, last + (length - 1) * step
    if count and (last + 1) * dtype.itemsize > of.size:
        raise ValueError(f"a tensor of shape {list(size)} does not fit into its storage of {of.size} bytes")
    if count * dtype.itemsize > of.size:  # one number for many: a few bytes would become any amount of memory
        raise NotPlain(f"has a tensor of shape {list(size)} that is larger than its storage of {of.size} bytes")


# Functions that make a tensor.
TENSORS = {
    "torch._utils._rebuild_tensor": rebuild_v1,
    "torch._utils._rebuild_tensor_v2": rebuild_v2,
    "torch._utils._rebuild_tensor_v3": rebuild_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": parameter,
    "torch._tensor._rebuild_from_type_v2": from_type,
}
