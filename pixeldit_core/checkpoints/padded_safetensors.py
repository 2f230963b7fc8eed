"""A `.safetensors` file with bytes after its tensors, which safetensors 0.8 refuses: every tensor is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

_LARGEST = 2**48  # of a dimension, and of a file


@dataclass(frozen=True)
class Entry:
    """One tensor of a header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # from the end of the header
    end: int


def parse_entries(header: Any, dtypes: Mapping[str, torch.dtype]) -> dict[str, Entry]:
    """The tensors of a header as JSON, checked as safetensors does: in a row, without gaps, each of its shape's size.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(header, dict):
        raise ValueError("its header is no dictionary")
    metadata = header.get("__metadata__") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata holds more than texts")
    entries = {key: _parse(key, value) for key, value in header.items() if key != "__metadata__"}
    at = 0
    for key, entry in sorted(entries.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.dtype not in dtypes:
            raise ValueError(f"{key[:80]} has the dtype {entry.dtype[:80]}")
        size = math.prod(entry.shape) * dtypes[entry.dtype].itemsize
        if entry.begin != at or entry.end - entry.begin != size:
            raise ValueError(f"{key[:80]} is not where the one before it ends, or not of the size of its shape")
        at = entry.end
    return entries


def _parse(key: str, value: Any) -> Entry:
    entry = value if isinstance(value, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if isinstance(dtype, str) and _is_sizes(shape) and _is_sizes(offsets) and len(offsets) == 2:
        return Entry(dtype, tuple(shape), *offsets)
    raise ValueError(f"the entry of {key[:80]} is none of a tensor")


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= 16 and all(type(n) is int and 0 <= n < _LARGEST for n in value)


class PaddedSafetensors:
    """As `safetensors.safe_open`, memory-mapped, of a file whose entries were checked by `parse_entries`."""

    def __init__(self, path: Path, header: Mapping[str, Any], start: int, dtypes: Mapping[str, torch.dtype]):
        """`start`: where the header ends."""
        self._path, self._start, self._dtypes = path, start, dtypes
        self._entries = parse_entries(header, dtypes)
        self._metadata = header.get("__metadata__")
        self._bytes: Tensor | None = None

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._entries)

    def metadata(self) -> dict[str, str] | None:
        """Texts that the header has."""
        return self._metadata

    def get_slice(self, key: str) -> Slice:
        """Shape and dtype of a tensor, as the header calls it."""
        return Slice(self._entries[key])

    def get_tensor(self, key: str) -> Tensor:
        """A tensor, mapped."""
        entry, dtype = self._entries[key], self._dtypes[self._entries[key].dtype]
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        part = self._mapped()[self._start + entry.begin : self._start + entry.end]
        if part.storage_offset() % dtype.itemsize:  # a header of any length: torch views aligned bytes alone
            part = part.clone()
        return part.view(dtype).view(entry.shape)

    def _mapped(self) -> Tensor:
        if self._bytes is None:
            size = self._start + max((entry.end for entry in self._entries.values()), default=0)
            self._bytes = torch.from_file(str(self._path), shared=False, size=size, dtype=torch.uint8)
        return self._bytes


@dataclass(frozen=True)
class Slice:
    """What `safe_open` gives for the header's entry of a tensor."""

    entry: Entry

    def get_shape(self) -> list[int]:
        """Sizes."""
        return list(self.entry.shape)

    def get_dtype(self) -> str:
        """As safetensors writes it: "BF16"."""
        return self.entry.dtype
