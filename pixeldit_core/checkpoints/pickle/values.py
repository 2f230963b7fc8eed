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

    __slots__ = ("has_tensors", "name")

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.has_tensors = False  # among its attributes: a network, a part of one, or an average of one

    def look_at(self, attributes: Any) -> None:
        """Notes whether there are tensors among attributes that it is given, or in containers among them."""
        self.has_tensors = self.has_tensors or any(
            _is_tensor(part) or any(map(_is_tensor, parts_of(part))) for part in parts_of(attributes)
        )


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


def parts_of(value: Any) -> list[Any] | tuple[Any, ...]:
    """The values of a container; nothing of anything else."""
    if isinstance(value, dict):
        return list(dict.values(value))
    return value if type(value) in (list, tuple) else ()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, Foreign) and value.has_tensors)


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
