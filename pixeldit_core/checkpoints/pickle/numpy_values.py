"""Values of numpy in a pickle, both of numpy 1 and 2: checked for what they say of their size, then stepped over."""

from __future__ import annotations

import math
import re
from typing import Any

from .errors import NotPlain
from .values import Blob, Global, Skipped, are_sizes, is_flat

_CORES = ("numpy.core", "numpy._core")
_CLASSES = ("numpy.ndarray", "numpy.matrix", "numpy.memmap", "numpy.rec.recarray", "numpy.recarray",
            "numpy.matrixlib.defmatrix.matrix", "numpy.core.memmap.memmap")  # fmt: skip
_DTYPE = re.compile(r"[biufcSUVMmO](\d{1,9})?|\?")
_LETTERS = {"U": 4}  # bytes for each of a dtype's number; 1 of others
_DIMENSIONS = 64

# Classes that a file may name, but not call.
REFERENCES = re.compile(
    r"numpy\.(record|void|generic|number|(bool|str|bytes|object|float|int|uint|complex|longlong|intc|single|double"
    r"|half|datetime|timedelta)(_|\d{1,3})?"
    r"|random\._(mt19937|pcg64|philox|sfc64)\.\w+|random\.bit_generator\.SeedSequence)"
    r"|" + "|".join(map(re.escape, _CLASSES))
)


class Dtype(Skipped):
    """A dtype; the bytes of a value, and whether they are objects of Python."""

    __slots__ = ("is_object", "width")

    def __init__(self, width: int, is_object: bool):
        super().__init__("numpy.dtype")
        self.width, self.is_object = width, is_object


class Array(Skipped):
    """An array, which is made empty and given its content afterwards."""

    __slots__ = ()


def dtype(name: Any, *flags: Any) -> Dtype:
    """numpy.dtype("f8", False, True), or of numpy.record."""
    if isinstance(name, Global) and name.name in ("numpy.record", "numpy.void"):
        return Dtype(0, False)
    if type(name) is not str or not _DTYPE.fullmatch(name) or not is_flat(flags):
        raise NotPlain("has a dtype of numpy that is not readable")
    return Dtype(int(name[1:] or 1) * _LETTERS.get(name[0], 1), name[0] == "O")


def set_dtype(of: Dtype, state: Any) -> None:
    """Version, byte order, subarray, names, fields, bytes of a value, alignment, flags; metadata of newer ones."""
    state = state if type(state) is tuple and 8 <= len(state) <= 9 else (None,) * 8
    order, names, fields, width = state[1], state[3], state[4], state[5]
    if type(order) is not str or order not in ("<", ">", "|", "=") or type(names) not in (tuple, type(None)):
        raise NotPlain("has a dtype of numpy that is not readable")
    if type(fields) not in (dict, type(None)) or type(width) is not int or width >= 2**31:
        raise NotPlain("has a dtype of numpy that is not readable")
    of.width = width if width >= 0 else of.width
    parts = [state[2], *(fields or {}).values()]  # of a subarray and of a structure: (dtype, ...)
    parts = [part[0] for part in parts if type(part) is tuple and part]
    of.is_object = of.is_object or any(isinstance(part, Dtype) and part.is_object for part in parts)


def scalar(kind: Any, data: Any) -> Skipped:
    """One number or string. Numpy writes none of objects."""
    if not isinstance(kind, Dtype) or kind.is_object or _bytes(data) != kind.width:
        raise NotPlain("has a number of numpy whose type is not that of its bytes")
    return Skipped("numpy.generic")


def array(kind: Any, shape: Any, letter: Any) -> Array:
    """The empty array that `set_array` is for."""
    if not isinstance(kind, Global) or kind.name not in _CLASSES or not are_sizes(shape, 1):
        raise NotPlain("has an array of numpy that is not made as numpy does it")
    return Array("numpy.ndarray")


def set_array(of: Array, state: Any) -> None:
    """Version, shape, dtype, order, and its bytes; or a list of objects, each of which was checked as any other."""
    state = state if type(state) is tuple and len(state) == 5 else (None,) * 5
    _check_content(state[4], state[2], state[1])


def buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """An array as protocol 5 has it."""
    _check_content(data, kind, shape)
    return Array("numpy.ndarray")


def _check_content(data: Any, kind: Any, shape: Any) -> None:
    if not isinstance(kind, Dtype) or not are_sizes(shape, _DIMENSIONS):
        raise NotPlain("has an array of numpy that is not readable")
    count = math.prod(shape)
    there = len(data) if kind.is_object and type(data) is list else _bytes(data)
    if kind.is_object != (type(data) is list) or there != count * (1 if kind.is_object else kind.width):
        raise NotPlain("has an array of numpy whose shape is not that of its content")


def _bytes(data: Any) -> int:
    """How many bytes; Python 2 wrote them as a string."""
    return data.size if isinstance(data, Blob) else len(data) if type(data) is str else -1


def random(*arguments: Any) -> Skipped:
    """A random generator of numpy, whose state is set afterwards."""
    if len(arguments) > 3 or not is_flat(arguments):
        raise NotPlain("has a random generator of numpy that is not readable")
    return Skipped("numpy.random")


CALLS = {
    "numpy.dtype": dtype,
    **{f"{core}.multiarray.scalar": scalar for core in _CORES},
    **{f"{core}.multiarray._reconstruct": array for core in _CORES},
    **{f"{core}.numeric._frombuffer": buffer for core in _CORES},
    **{f"numpy.random._pickle.__{kind}_ctor": random for kind in ("randomstate", "generator", "bit_generator")},
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": random,
}
