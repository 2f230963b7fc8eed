"""Params of a network as a recipe has them."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from ..families.record import Family

_SHOWN = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def plain_params(family: Family, values: Mapping[str, Any]) -> dict[str, Any]:
    """Params as YAML has them -> as the family takes them.

    Raises:
        ValueError: an unknown name (the nearest is named), or a value of the wrong type.
    """
    known = [field.name for field in dataclasses.fields(family.params)]
    hints = typing.get_type_hints(family.params)
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f'the nearest is "{near[0]}"' if near else f"there are {', '.join(known)}"
            raise ValueError(f"model.params.{name} is not a size of {family.name}; {hint}.")
        if not _accepts(hints[name], value):
            raise ValueError(f"model.params.{name} is {value!r}; {family.name} takes {_describe(hints[name])} there.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _accepts(hint: Any, value: Any) -> bool:
    """Whether a plain value is of a type: a number, a text, a list of them, one of some, or null."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_accepts(each, value) for each in inner)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        return isinstance(value, list | tuple) and all(_accepts(inner[0], each) for each in value)
    return type(value) in ((int, float) if hint is float else (hint,))


def _describe(hint: Any) -> str:
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_describe, inner))
    if kind is Literal:
        return "one of " + ", ".join(f'"{each}"' for each in inner)
    return f"a list, each {_describe(inner[0])}," if kind is tuple else _SHOWN[hint]
