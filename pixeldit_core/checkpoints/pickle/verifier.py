"""Verifies a pickle: follows it without building it.

torch's weights-only reader runs no code of a file, but a few bytes can make it allocate any amount of memory, or read
past the end of a record. So a pickle is interpreted here first, operation by operation, with sizes in place of objects:
only what a file of plain tensors needs is allowed, and every tensor has to fit into its storage, every storage into
the file.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeGuard

import torch

# The kinds of storage that torch writes, and the bytes of an element. Quantized ones are not among them; newer dtypes
# are stored as bytes (UntypedStorage).
_STORAGES = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16,
    "torch.storage.UntypedStorage": 1,
    "torch.UntypedStorage": 1,
}
_OPERATIONS = 2_000_000  # about 40 for each tensor: tens of thousands of tensors
_COPIED = 64 * 2**20  #    characters or entries that calls may copy, all together
_DIMENSIONS = 16
_MALFORMED = "malformed pickle (stack underflow or unknown memo entry)"

_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_SET": "set"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class ForeignClass(ValueError):
    """A pickle wants a class or function (the only argument: its name) that plain tensors do not need."""


@dataclass
class _Object:
    """Stands in for an object."""

    kind: str
    size: int = 0  # entries of a dictionary, bytes of a storage


@dataclass
class PickleVerifier:
    """Verifies the pickles of one file, one after the other."""

    storages: dict[str, int] = field(default_factory=dict[str, int])  # bytes by key
    result: Any = None  #                                               of the last pickle: its value, or kind of object
    _operations: int = 0
    _copied: int = 0

    def verify(self, stream: BinaryIO) -> None:
        """Follow one pickle from the stream's position to its end.

        Raises:
            ForeignClass: it needs anything but plain tensors and values.
            ValueError: it is damaged, not by torch, or would take unreasonable memory.
        """
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}
        try:
            for code, argument, _ in pickletools.genops(stream):
                self._operations += 1
                if self._operations > _OPERATIONS:
                    raise ValueError(f"its pickle has more than {_OPERATIONS:,} operations")
                self._step(code.name, argument, stack, marks, memo)
        except (IndexError, KeyError) as error:  # of the stack and the memo
            raise ValueError(_MALFORMED) from error
        self.result = stack[-1].kind if isinstance(stack[-1], _Object) else stack[-1]

    def _step(self, name: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[int, Any]) -> None:
        """One operation; its effect on the stack is that of torch's reader."""
        if name in _PLAIN:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_Object(_EMPTY[name]))
        elif name == "TUPLE" or name in _TUPLES:
            start = marks.pop() if name == "TUPLE" else len(stack) - _TUPLES[name]
            stack.append(tuple(_pop(stack, start)))
        elif name in ("SETITEM", "SETITEMS"):
            items = _pop(stack, marks.pop() if name == "SETITEMS" else len(stack) - 2)
            # others can be made to hash for ever: nested tuples, large numbers that collide
            if not all(key is None or type(key) in (str, bool) or _small(key) for key in items[::2]):
                raise ValueError("a dictionary has a key that is neither a string nor a small number")
            if not isinstance(stack[-1], _Object):
                raise ValueError(_MALFORMED)
            stack[-1].size += len(items) // 2
        elif name in ("APPEND", "APPENDS"):
            _pop(stack, marks.pop() if name == "APPENDS" else len(stack) - 1)
        elif name == "GLOBAL":
            stack.append(_Object(_check_global(argument)))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self._call(stack.pop(), arguments))
        elif name == "BUILD":
            _check_state(stack.pop(), stack[-1])
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"its pickle has the operation {name}, which torch does not write")

    def _storage(self, reference: Any) -> _Object:
        """("storage", type, key, location, elements); older files add a None."""
        parts: tuple[Any, ...] = reference if isinstance(reference, tuple) else ()
        kind, of, key, location, count = (*parts, *(None,) * 5)[:5]
        if kind != "storage" or not isinstance(of, _Object) or of.kind not in _STORAGES or any(parts[5:]):
            raise ValueError("it has a storage of another kind than torch writes")
        if type(key) is not str or type(location) is not str or not _natural(count):
            raise ValueError("it has a storage of another kind than torch writes")
        size = count * _STORAGES[of.kind]
        if self.storages.setdefault(key, size) != size:
            raise ValueError(f"it has two storages of the name {key[:80]!r}")
        return _Object(of.kind, size)

    def _call(self, function: Any, arguments: Any) -> _Object:
        name = function.kind if isinstance(function, _Object) else ""
        if name not in _CALLS or not isinstance(arguments, tuple) or not _CALLS[name](*arguments[:8]):
            raise ValueError(f"it calls {name or 'something'} in a way that torch does not write")
        if name == "_codecs.encode":
            self._copied += len(arguments[0])
        elif name == "collections.Counter":
            self._copied += arguments[0].size
        if self._copied > _COPIED:
            raise ValueError(f"its calls copy more than {_COPIED:,} characters")
        return _Object(name)


def _pop(stack: list[Any], start: int) -> list[Any]:
    if start < 0 or start > len(stack):
        raise IndexError(start)
    popped = stack[start:]
    del stack[start:]
    return popped


def _natural(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63


def _small(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**32


def _check_global(argument: str) -> str:
    name = argument.replace(" ", ".", 1)
    if name.startswith("__builtin__."):  # as Python 2 called it, and as pickles still do
        name = name.replace("__builtin__", "builtins", 1)
    plain = name in _CALLS or name in _STORAGES or name == "numpy.ndarray"
    if not plain and not isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype):
        raise ForeignClass(name[:200])
    return name


def _check_state(state: Any, of: Any) -> None:
    """Allow attributes of a state dict (its `_metadata`) and the state of numpy's arrays only."""
    kind = of.kind if isinstance(of, _Object) else ""
    if kind == "collections.OrderedDict":
        good = isinstance(state, _Object) and state.kind == "dict"
    elif kind == "numpy.dtype":
        good = isinstance(state, tuple) and len(state) == 8 and state[1] in ("<", ">", "|", "=")
        good = good and state[2:] == (None, None, None, -1, -1, 0)
    elif kind in _ARRAYS:
        good = isinstance(state, tuple) and len(state) == 5 and _sizes(state[1])
        good = good and all(isinstance(part, _Object) for part in (state[2], state[4]))
        good = good and (state[2].kind, state[4].kind) == ("numpy.dtype", "_codecs.encode")
    else:
        good = False
    if not good:
        raise ValueError(f"it sets attributes of {kind or 'something'} in a way that torch does not write")


def _sizes(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _DIMENSIONS and all(_natural(size) for size in value)


def _is_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any = None) -> bool:
    """Whether it is a tensor; one that is larger than its storage (as expanded ones are) is a ValueError."""
    if not isinstance(storage, _Object) or storage.kind not in _STORAGES or type(grad) is not bool:
        return False
    if not (_natural(offset) and _sizes(size) and _sizes(stride) and len(size) == len(stride)):
        raise ValueError("a tensor's shape is not readable")
    width = _STORAGES[storage.kind]
    if dtype is not None:
        dtype = getattr(torch, dtype.kind.removeprefix("torch."), None) if isinstance(dtype, _Object) else None
        if not isinstance(dtype, torch.dtype):
            return False
        width = dtype.itemsize
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count, last = count * length, last + (length - 1) * step
    if count and (last + 1) * width > storage.size:
        raise ValueError(f"a tensor of shape {list(size)} does not fit into its storage of {storage.size} bytes")
    if count * width > storage.size:
        raise ValueError(f"a tensor of shape {list(size)} is larger than its storage of {storage.size} bytes")
    return True


# All that may be called, and whether it takes these arguments.
_CALLS: dict[str, Callable[..., bool]] = {
    "collections.OrderedDict": lambda *none: not none,
    "collections.Counter": lambda *counts: len(counts) == 1 and getattr(counts[0], "kind", "") == "dict",
    "torch._utils._rebuild_tensor_v2": lambda *it: len(it) == 6 and _is_tensor(*it),
    "torch._utils._rebuild_tensor_v3": lambda *it: len(it) == 7 and _is_tensor(*it),
    "torch._utils._rebuild_parameter": lambda *it: (
        len(it) == 3 and isinstance(it[0], _Object) and it[0].kind.startswith("torch._utils._rebuild_tensor_v")
    ),
    "torch.Size": lambda *it: len(it) == 1 and _sizes(it[0]),
    "torch.device": lambda *it: 1 <= len(it) <= 2 and type(it[0]) is str and all(map(_natural, it[1:])),
    # A numpy random state, saved by a trainer beside its weights: arrays of plain numbers, made empty and then filled.
    "_codecs.encode": lambda *it: len(it) == 2 and type(it[0]) is str and it[1] == "latin1",
    "numpy.dtype": lambda *it: bool(it) and type(it[0]) is str and bool(re.fullmatch(r"[biuf][1248]", it[0])),
    **dict.fromkeys(_ARRAYS, lambda *it: len(it) == 3 and getattr(it[0], "kind", "") == "numpy.ndarray"
                    and it[1] == (0,)),
}  # fmt: skip
