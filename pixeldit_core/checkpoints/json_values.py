"""Values that come from files: checked against the type they should have, and shortened for messages."""

from __future__ import annotations

import reprlib
from typing import Any, TypeGuard

_LARGEST = 2**31  # above any size of a network

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxlong = _repr.maxother = 80


def short_repr(value: Any) -> str:
    """A value of any kind for a message, shortened."""
    return _repr.repr(value)


def short_text(error: Exception) -> str:
    """The text of an error, shortened: a value of a file can make it very long."""
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-100:]}"


def convert_like(value: Any, default: Any) -> Any:
    """A value in the type of the default that it replaces: 4 for 4.0 where the default is an int.

    Where the default is None, any number is accepted.

    Raises:
        ValueError: another type, not finite, or larger than any size.
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
    raise ValueError(f"{short_repr(value)}, expected {'a number' if default is None else f'a value like {default!r}'}")


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number that a network's params can have."""
    return type(value) in (int, float) and abs(value) < _LARGEST  # false for NaN and infinity
