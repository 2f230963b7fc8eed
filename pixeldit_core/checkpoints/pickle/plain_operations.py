"""Operations of a pickle that make plain values: numbers, strings, containers; and those of stack, marks and memo."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch import dtype as TorchDtype

from .errors import NotPlain
from .machine import MALFORMED, Machine
from .values import Blob, Foreign, Global, Skipped, is_flat

_LARGEST_INTEGER = 255  # bytes; longer ones are stepped over
_LONGEST_KEY = 16  #      entries of a tuple

Operation = Callable[[Machine, int], int]  # from the place after its code to that of the next


# ---- numbers and strings ---------------------------------------------------------------------------------------------


def _constant(value: Any) -> Operation:
    def push(machine: Machine, at: int) -> int:
        machine.stack.append(value)
        return at

    return push


def _number(layout: str) -> Operation:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def push(machine: Machine, at: int) -> int:
        machine.stack.append(unpack(machine.data, at)[0])
        return at + size

    return push


def _byte(machine: Machine, at: int) -> int:
    machine.stack.append(machine.data[at])
    return at + 1


def _sized(layout: str, take: Callable[[Machine, int, int], Any]) -> Operation:
    """Of an operation with a length and as many bytes, of which `take` makes a value."""
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def push(machine: Machine, at: int) -> int:
        length, begin = unpack(machine.data, at)[0], at + size
        end = machine.end(begin, length)
        machine.stack.append(take(machine, begin, end))
        return end

    return push


def _text(machine: Machine, begin: int, end: int) -> str:
    return machine.data[begin:end].decode("utf-8", "surrogatepass")


def _old_text(machine: Machine, begin: int, end: int) -> str:
    """A string of Python 2: bytes, mostly ASCII."""
    return machine.data[begin:end].decode("latin-1")


def _blob(machine: Machine, begin: int, end: int) -> Blob:
    return Blob(end - begin)


def _integer(machine: Machine, begin: int, end: int) -> Any:
    if end - begin > _LARGEST_INTEGER:
        return Skipped("builtins.int")
    return int.from_bytes(machine.data[begin:end], "little", signed=True)


def _decimal(machine: Machine, at: int) -> int:
    """A whole number, or a bool, as protocol 1 has it."""
    text, end = machine.line(at)
    value: Any = {"00": False, "01": True}.get(text)
    machine.stack.append(int(text.removesuffix("L")) if value is None else value)
    return end


# ---- stack and memo --------------------------------------------------------------------------------------------------


def _get_byte(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[machine.data[at]])
    return at + 1


def _put_byte(machine: Machine, at: int) -> int:
    machine.memo[machine.data[at]] = machine.stack[-1]
    return at + 1


def _get(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[_UINT32(machine.data, at)[0]])
    return at + 4


def _put(machine: Machine, at: int) -> int:
    machine.memo[_UINT32(machine.data, at)[0]] = machine.stack[-1]
    return at + 4


_UINT32 = struct.Struct("<I").unpack_from


def _memoize(machine: Machine, at: int) -> int:
    machine.memo[len(machine.memo)] = machine.stack[-1]
    return at


def _mark(machine: Machine, at: int) -> int:
    machine.below.append(machine.stack)
    machine.stack = []
    return at


def _pop(machine: Machine, at: int) -> int:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()
    return at


def _pop_mark(machine: Machine, at: int) -> int:
    machine.pop_mark()
    return at


def _duplicate(machine: Machine, at: int) -> int:
    machine.stack.append(machine.stack[-1])
    return at


def _protocol(machine: Machine, at: int) -> int:
    if machine.data[at] > 5:
        raise NotPlain(f"has a pickle of protocol {machine.data[at]}, which is newer than those that are known")
    return at + 1


def _frame(machine: Machine, at: int) -> int:
    """Only says how many bytes there are at least, for readers that fetch them in parts."""
    begin = machine.end(at, 8)
    machine.end(begin, int.from_bytes(machine.data[at:begin], "little"))
    return begin


# ---- containers ------------------------------------------------------------------------------------------------------


def _make(kind: Callable[[], Any]) -> Operation:
    def push(machine: Machine, at: int) -> int:
        machine.stack.append(kind())
        return at

    return push


def _tuple(count: int) -> Operation:
    def push(machine: Machine, at: int) -> int:
        stack = machine.stack
        if len(stack) < count:
            raise IndexError
        stack[-count:] = [tuple(stack[-count:])]
        return at

    return push


def _tuple_of_mark(machine: Machine, at: int) -> int:
    values = tuple(machine.pop_mark())
    machine.stack.append(values)
    return at


def _frozen_set(machine: Machine, at: int) -> int:
    machine.pop_mark()
    machine.stack.append(Skipped("builtins.frozenset"))
    return at


def _append(machine: Machine, at: int) -> int:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])
    return at


def _append_all(machine: Machine, at: int) -> int:
    values = machine.pop_mark()
    _extend(machine.stack[-1], values)
    return at


def _extend(target: Any, values: list[Any]) -> None:
    if type(target) is list:
        target += values
    elif not isinstance(target, (Skipped, Foreign)):  # sets, queues: what they hold is not read
        raise ValueError(MALFORMED)


def _set_item(machine: Machine, at: int) -> int:
    value, key = machine.stack.pop(), machine.stack.pop()
    set_items(machine.stack[-1], [key, value])
    return at


def _set_items(machine: Machine, at: int) -> int:
    items = machine.pop_mark()
    set_items(machine.stack[-1], items)
    return at


def set_items(target: Any, items: list[Any]) -> None:
    """Gives a dictionary its entries, keys and values in turn, but for those that name no weights.

    Raises:
        NotPlain: a key is none that plain dictionaries have.
        ValueError: it is no dictionary, or a value is missing.
    """
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError(MALFORMED)
    entries = iter(items)
    for key in entries:
        value = next(entries)
        if type(key) is str or _is_key(key):
            target[key] = value


def _is_key(key: Any) -> bool:
    """Whether an entry is kept: not those of tuples, classes and others, which name no weights and may hash for ever.

    Raises:
        NotPlain: no key that plain dictionaries have.
    """
    if key is None or type(key) in (bool, float) or (type(key) is int and abs(key) < 2**60):
        return True
    if isinstance(key, (Skipped, Global, Foreign, Tensor, TorchDtype)):
        return False
    if type(key) is tuple and len(key) <= _LONGEST_KEY and is_flat(key):
        return False
    raise NotPlain("has a dictionary with a key that is neither a string nor a small number nor a few of them")


PLAIN: dict[bytes, Operation] = {
    pickle.PROTO: _protocol, pickle.FRAME: _frame, pickle.MARK: _mark, pickle.POP: _pop, pickle.POP_MARK: _pop_mark,
    pickle.DUP: _duplicate, pickle.BINGET: _get_byte, pickle.BINPUT: _put_byte, pickle.LONG_BINGET: _get,
    pickle.LONG_BINPUT: _put, pickle.MEMOIZE: _memoize,
    pickle.NONE: _constant(None), pickle.NEWTRUE: _constant(True), pickle.NEWFALSE: _constant(False),
    pickle.EMPTY_TUPLE: _constant(()), pickle.EMPTY_SET: _constant(Skipped("builtins.set")),
    pickle.BININT: _number("<i"), pickle.BININT1: _byte, pickle.BININT2: _number("<H"), pickle.BINFLOAT: _number(">d"),
    pickle.INT: _decimal, pickle.LONG: _decimal,
    pickle.LONG1: _sized("<B", _integer), pickle.LONG4: _sized("<I", _integer),
    pickle.BINUNICODE: _sized("<I", _text), pickle.SHORT_BINUNICODE: _sized("<B", _text),
    pickle.BINUNICODE8: _sized("<Q", _text), pickle.BINSTRING: _sized("<I", _old_text),
    pickle.SHORT_BINSTRING: _sized("<B", _old_text), pickle.BINBYTES: _sized("<I", _blob),
    pickle.SHORT_BINBYTES: _sized("<B", _blob), pickle.BINBYTES8: _sized("<Q", _blob),
    pickle.BYTEARRAY8: _sized("<Q", _blob),
    pickle.EMPTY_DICT: _make(dict), pickle.EMPTY_LIST: _make(list), pickle.TUPLE: _tuple_of_mark,
    pickle.TUPLE1: _tuple(1), pickle.TUPLE2: _tuple(2), pickle.TUPLE3: _tuple(3), pickle.FROZENSET: _frozen_set,
    pickle.APPEND: _append, pickle.APPENDS: _append_all, pickle.ADDITEMS: _append_all,
    pickle.SETITEM: _set_item, pickle.SETITEMS: _set_items,
}  # fmt: skip
