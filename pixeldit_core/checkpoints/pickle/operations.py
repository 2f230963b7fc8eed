"""Follows a pickle, operation by operation, and makes plain values of it; of all else, only what stands for it.

It does what Python's unpickler does, to its stack, marks and memo, for the operations that a file of weights has. But
there is nothing that it could import, call or run: `classes` says what stands for an object, `tensors` what a tensor
needs. So a file is checked and read at once, and no second reader can understand it in another way.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import struct
from collections.abc import Iterator
from typing import Any

from . import classes, tensors
from .errors import ForeignClass, NotPlain, TooLong
from .machine import EARLY, MALFORMED, MOST_OPERATIONS, Machine
from .plain_operations import PLAIN, Operation, set_items
from .values import Global, parts_of

_STOP = pickle.STOP[0]
_CALL = 4  # what a call costs, in other operations


def load(machine: Machine) -> Any:
    """The value of the next pickle.

    Raises:
        ForeignClass: it needs a class or function that plain values and tensors do not need.
        NotPlain, TooLong: it has something else that is not read, or too much of it.
        ValueError: it is damaged.
    """
    machine.clear()
    with _without_collector():
        return _follow(machine)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Python's search for cycles would look at all values again and again while they become more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _follow(machine: Machine) -> Any:
    data, at, operations, count = machine.data, machine.at, _OPERATIONS, 0
    try:
        for count in range(machine.work):  # noqa: B007 - used after the loop
            code = data[at]
            if code == _STOP:
                machine.at = at + 1
                return machine.stack[-1]
            at = operations[code](machine, at + 1)
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError(EARLY if at >= len(data) or isinstance(error, struct.error) else MALFORMED) from error
    finally:
        machine.work -= count
    raise TooLong(f"its pickle has more than {MOST_OPERATIONS:,} operations")


def _global(machine: Machine, at: int) -> int:
    module, at = machine.line(at)
    name, at = machine.line(at)
    machine.stack.append(_resolve(machine, module, name))
    return at


def _stack_global(machine: Machine, at: int) -> int:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(module) is not str or type(name) is not str:
        raise NotPlain("has a class whose name is no text")
    machine.stack.append(_resolve(machine, module, name))
    return at


def _old_instance(machine: Machine, at: int) -> int:
    """An object of a class as Python 2 had them."""
    module, at = machine.line(at)
    raise ForeignClass(f"{module}.{machine.line(at)[0]}"[:200])


def _resolve(machine: Machine, module: str, name: str) -> Any:
    known = machine.globals
    machine.spend(2)
    if (module, name) not in known:
        known[module, name] = classes.resolve(module, name)
    return known[module, name]


def _persistent(machine: Machine, at: int) -> int:
    """A storage; or, in the older container, the class of a module beside the text of its program."""
    reference = machine.stack.pop()
    is_class = type(reference) is tuple and len(reference) == 4 and isinstance(reference[1], Global)
    machine.stack.append(reference[1] if is_class else tensors.storage(machine.places, reference))
    return at


def _call(machine: Machine, at: int) -> int:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.spend(_CALL)
    if isinstance(function, Global) and function.name == "collections.OrderedDict" and arguments:
        machine.stack.append(_old_dictionary(machine, arguments))
    else:
        machine.stack.append(classes.call(machine.places, function, arguments))
    return at


def _old_dictionary(machine: Machine, arguments: Any) -> dict[Any, Any]:
    """An OrderedDict of Python 2: a list of its entries, each a list of two."""
    entries = arguments[0] if type(arguments) is tuple and len(arguments) == 1 else None
    if type(entries) is not list or not all(type(entry) in (list, tuple) and len(entry) == 2 for entry in entries):
        raise NotPlain("has a call of collections.OrderedDict that pickle does not write")
    machine.spend(len(entries))
    made: dict[Any, Any] = {}
    set_items(made, [part for entry in entries for part in entry])
    return made


def _new(machine: Machine, at: int) -> int:
    arguments, cls = machine.stack.pop(), machine.stack.pop()
    machine.spend(_CALL)
    machine.stack.append(classes.new(cls, arguments))
    return at


def _new_with_keywords(machine: Machine, at: int) -> int:
    keywords, arguments, cls = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.spend(_CALL)
    if type(keywords) is not dict:
        raise ValueError(MALFORMED)
    machine.stack.append(classes.new(cls, arguments))
    return at


def _build(machine: Machine, at: int) -> int:
    state = machine.stack.pop()
    parts = parts_of(state)
    machine.spend(_CALL + len(parts))
    machine.spend(sum(len(part) for part in parts if isinstance(part, (dict, list, tuple))))
    classes.set_state(machine.stack[-1], state)
    return at


def _unknown(code: int) -> Operation:
    def refuse(machine: Machine, at: int) -> int:
        names = [name for name in pickle.__all__ if name.isupper() and getattr(pickle, name) == bytes([code])]
        if not names:
            raise ValueError(MALFORMED)
        raise NotPlain(f"has the pickle operation {names[0]}, which torch.save does not write")

    return refuse


_KNOWN: dict[bytes, Operation] = PLAIN | {
    pickle.GLOBAL: _global, pickle.STACK_GLOBAL: _stack_global, pickle.INST: _old_instance,
    pickle.BINPERSID: _persistent, pickle.REDUCE: _call,
    pickle.NEWOBJ: _new, pickle.NEWOBJ_EX: _new_with_keywords, pickle.BUILD: _build,
}  # fmt: skip
_OPERATIONS = [_KNOWN.get(bytes([code])) or _unknown(code) for code in range(256)]
