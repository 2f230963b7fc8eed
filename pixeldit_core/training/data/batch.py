"""What a data set gives for a draw, and rows of it together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...sizes import Size
from .order import Draw
from .transforms import Transform

_TRIES = 1000  # broken images, one after the other, until a run gives up


@dataclass
class Example:
    """One image."""

    pixels: Tensor  #            uint8 [C, H, W]
    label: int | None
    caption: str | None
    draw: Draw
    broken: tuple[str, ...]  #   images that could not be read and that this one stands in for, and why


@dataclass
class Loaded:
    """Rows on the CPU."""

    pixels: Tensor  #            uint8 [B, C, H, W]
    labels: Tensor | None  #     int64 [B]
    captions: list[str] | None
    seeds: Tensor  #             int64 [B]
    weights: Tensor  #           float32 [B]
    broken: list[str]

    def split(self, size: int) -> list[Loaded]:
        """Parts of at most `size` rows."""
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.seeds), size)]

    def pin_memory(self) -> Loaded:
        """The same in page-locked memory, from where copies to a GPU do not wait."""
        return replace(self, pixels=self.pixels.pin_memory())

    def _rows(self, rows: slice) -> Loaded:
        labels = None if self.labels is None else self.labels[rows]
        captions = None if self.captions is None else self.captions[rows]
        return Loaded(self.pixels[rows], labels, captions, self.seeds[rows], self.weights[rows], [])


def collate(examples: Sequence[Example]) -> Loaded:
    """Rows of one size. A row of weight 0 repeats one of weight 1, which reports what is broken."""
    labels = [example.label for example in examples if example.label is not None]
    captions = [example.caption for example in examples if example.caption is not None]
    return Loaded(
        pixels=torch.stack([example.pixels for example in examples]),
        labels=torch.tensor(labels) if len(labels) == len(examples) else None,
        captions=captions if len(captions) == len(examples) else None,
        seeds=torch.tensor([example.draw.seed for example in examples]),
        weights=torch.tensor([example.draw.weight for example in examples], dtype=torch.float32),
        broken=[problem for example in examples if example.draw.weight for problem in example.broken],
    )


class ImageData(Dataset[Example], ABC):
    """Images by number. A broken one is reported, and another one, always the same, is in its place."""

    groups: Sequence[int] | None = None  # numbers of images that are best read together

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The image as it is stored; raises whatever reading raises."""

    @abstractmethod
    def target(self, index: int) -> tuple[int | None, str | None]:
        """Label and caption."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Of the image, for messages."""

    @abstractmethod
    def sizes(self) -> Sequence[Size]:
        """Height and width that each image becomes."""

    def captions(self) -> list[str]:
        """Of all images."""
        return [self.target(index)[1] or "" for index in range(len(self))]

    def __getitem__(self, draw: Draw) -> Example:
        problems: list[str] = []
        stride = _stride(len(self))
        for attempt in range(min(_TRIES, len(self))):
            number = (draw.index + attempt * stride) % len(self)
            try:
                pixels = self.transform(self.read(number), draw)
            except Exception as error:  # a decoder may raise anything, and no image may end a run
                problems.append(f"{self.name(number)}: {_reason(error)}")
                continue
            label, caption = self.target(number)
            return Example(pixels, label, caption, draw, tuple(problems))
        raise ValueError(f"none of {len(problems)} images can be read, such as {problems[0]}. Check the data.")


def _stride(count: int) -> int:
    """Steps of this length reach every image, and leave a region of broken ones at once."""
    stride = max(1, round(0.618 * count))
    while math.gcd(stride, count) > 1:
        stride -= 1
    return stride


def _reason(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
