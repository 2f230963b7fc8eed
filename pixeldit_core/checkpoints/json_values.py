"""Values that a file tells: of the kind that they should be, and short enough for a message."""

from __future__ import annotations

import reprlib
from typing import Any

_LARGEST = 2**31  # above any size of a network

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = 80


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    return _brief.repr(value)


def brief(error: Exception) -> str:
    """What went wrong, without the book that a value of a file can make of it."""
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-100:]}"


def fitting(value: Any, default: Any) -> Any:
    """A value in the place of a default and of its kind: 4 for 4.0 where that is a whole number.

    Where the default is None, a number can stand.

    Raises:
        ValueError: it is of another kind, not finite, or beyond any size.
    """
    if isinstance(default, bool | str):
        if type(value) is type(default):
            return value
    elif isinstance(default, tuple):
        if isinstance(value, list | tuple) and all(map(is_number, value)):
            return tuple(map(float, value))
    elif isinstance(default, int):
        if is_number(value) and value == int(value):
            return int(value)
    elif value is None and default is None:
        return None
    elif is_number(value):
        return float(value) if isinstance(default, float) else value
    raise ValueError(f"{shown(value)}, and should be {'a number' if default is None else f'like {default!r}'}")


def is_number(value: Any) -> bool:
    """Whether it is one that a network can have."""
    return type(value) in (int, float) and abs(value) < _LARGEST  # which neither NaN nor infinity is
