"""What stands for the objects of a pickle while it is followed. None of it can do anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


class Global:
    """The name of a class or function. Nothing is imported for it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Skipped:
    """A value that is stepped over: the name of its class is all that is left of it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Blob(Skipped):
    """Bytes that are stepped over; their number is kept."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        super().__init__("builtins.bytes")
        self.size = size


class Foreign(dict[Any, Any]):
    """An object of a class of some program, without its attributes. It has entries if its class is a dictionary's."""

    __slots__ = ("is_module", "name")

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.is_module = False  # a network, or a part of one


@dataclass(frozen=True)
class Storage:
    """Where the numbers of tensors are: a key of the container, bytes in all and of an element."""

    key: str
    size: int
    width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Place:
    """Where the numbers of one tensor are in its storage, counted in elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Places:
    """Storages of a file by their key, and the place of each tensor by the `id` of its stand-in on "meta"."""

    storages: dict[str, Storage] = field(default_factory=dict[str, Storage])
    tensors: dict[int, Place] = field(default_factory=dict[int, Place])


SCALARS = frozenset((str, int, float, bool, type(None)))


def is_flat(values: tuple[Any, ...]) -> bool:
    """Whether they are numbers, strings and values that are stepped over, and no containers."""
    return all(type(value) in SCALARS or isinstance(value, (Skipped, Global, torch.dtype)) for value in values)


def is_natural(value: Any) -> bool:
    """Whether it is a whole number that may be a size."""
    return type(value) is int and 0 <= value < 2**63


def are_sizes(value: Any, dimensions: int = 16) -> bool:
    """Whether it is a shape of so many dimensions at most."""
    return type(value) is tuple and len(value) <= dimensions and all(map(is_natural, value))
