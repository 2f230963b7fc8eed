"""The numbers of tensors: parts of one memory map of the file, which the system reads when they are used."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .values import Place, Storage


class Contents:
    """Makes tensors from a file's bytes.

    Args:
        starts: where each storage begins in the file, by its key.
    """

    def __init__(self, path: Path, starts: dict[str, int]):
        self._path, self._starts = path, starts
        self._whole: torch.UntypedStorage | None = None
        self._parts: dict[str, torch.UntypedStorage] = {}

    def tensor(self, place: Place) -> Tensor:
        """One tensor; those of one storage share its memory."""
        key = place.storage.key
        if key not in self._parts:
            self._parts[key] = self._part(place.storage)
        return torch.empty(0, dtype=place.dtype).set_(self._parts[key], place.offset, place.size, place.stride)

    def _map(self) -> torch.UntypedStorage:
        if self._whole is None:
            whole = torch.UntypedStorage.from_file(str(self._path), False, self._path.stat().st_size)
            assert isinstance(whole, torch.UntypedStorage)
            self._whole = whole
        return self._whole

    def _part(self, storage: Storage) -> torch.UntypedStorage:
        if not storage.size:
            return torch.UntypedStorage(0)
        start = self._starts[storage.key]
        part = self._map()[start : start + storage.size]
        return part.clone() if start % storage.width else part  # numbers have to begin at multiples of their size
