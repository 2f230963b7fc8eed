"""A network's tensors, read from those of a file on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .comfy_adaln import halves_of, is_half, join_halves
from .dequantize import dequantize, scaled_fp8
from .detect import Detected
from .encoder_inside import is_of_encoder
from .header import Header
from .quantized import is_plain


@dataclass(frozen=True)
class StoredFile:
    """The tensors of a file as stored, with its metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    name: str  # for messages


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of a network by canonical name; ComfyUI's halves are joined, quantized weights dequantized.

    That happens on each access, so that a quantized file is never in memory as a whole, nor twice: iterate only once.
    Access raises ValueError, with the file's name, for a tensor whose description or scale is damaged.
    """

    def __init__(self, file: StoredFile, header: Header, detected: Detected, dtype: torch.dtype):
        """`dtype`: of dequantized weights; others stay as stored."""
        self._file, self._quantized, self._dtype = file, header.quantized, dtype
        self._group, self._stored = detected.group, detected.stored
        self._channels = getattr(detected.spec.params, "pixel_hidden_size", 0)
        self._shapes = detected.shapes

    def __getitem__(self, key: str) -> Tensor:
        try:
            return self._read(self._stored[key], self._shapes[key])
        except (ValueError, RuntimeError) as error:  # RuntimeError: halves of dtypes that torch does not join
            raise ValueError(f"{self._file.name}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def pop(self, key: str) -> Tensor:
        """As a dictionary's: ComfyUI takes the weights away one by one."""
        value = self[key]
        del self._shapes[key]
        return value

    def meta(self) -> dict[str, Tensor]:
        """All on "meta": their shapes and dtypes."""
        return {
            key: torch.empty(shape, dtype=self._dtype_of(self._stored[key]), device="meta")
            for key, shape in self._shapes.items()
        }

    def scaled(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Float8 weights that have a scale, as stored, with that scale []."""
        pairs = {}
        for key, kind in self._quantized.items():
            if kind != "fp8" or not key.startswith(self._group.prefix) or is_half(key) or is_of_encoder(key):
                continue
            try:
                pair = scaled_fp8(key, self._file.tensors, self._file.metadata)
            except ValueError as error:
                raise ValueError(f"{self._file.name}: {error}") from error
            if pair:
                pairs[key[len(self._group.prefix) :]] = pair
        return pairs

    def _read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        if key not in self._file.tensors:
            msa, mlp = (self._read(half, (shape[0] // 2, *shape[1:])) for half in halves_of(key))
            return join_halves(msa, mlp, self._channels)
        if self._is_as_stored(key):
            return self._file.tensors[key]
        return dequantize(key, self._file.tensors, self._file.metadata, shape, self._dtype)

    def _is_as_stored(self, key: str) -> bool:
        """Of quantized weights, those without a scale; but an encoder never stays quantized."""
        if key not in self._quantized:
            return True
        return not is_of_encoder(key) and is_plain(key, self._file.tensors, self._file.metadata)

    def _dtype_of(self, key: str) -> torch.dtype:
        key = key if key in self._file.tensors else halves_of(key)[0]
        return self._file.tensors[key].dtype if self._is_as_stored(key) else self._dtype
