"""The images of an evaluation: PNG files in folders of 1,000, each complete or not there."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PER_FOLDER = 1000
_STALE = 3600.0  # seconds
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class ImageFolder:
    """images/012/012345.png below a folder; images of height, width and channels."""

    path: Path
    shape: tuple[int, int, int]

    def file(self, index: int) -> Path:
        """Of image `index`."""
        return self.path / "images" / f"{index // PER_FOLDER:03d}" / f"{index:06d}.png"

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Those that are not there, or broken."""
        return [index for index in indices if not self.is_whole(index)]

    def is_whole(self, index: int) -> bool:
        """Whether an image is there in the right size, with every checksum of its file right."""
        height, width, channels = self.shape
        try:
            with Image.open(self.file(index)) as image:
                fits = image.format == "PNG" and image.size == (width, height) and image.mode == _MODES[channels]
                image.verify()
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for truncated and damaged files
            return False
        return fits

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, C].

        Raises:
            ValueError: a broken file, or one of another size.
        """
        try:
            with Image.open(self.file(index)) as image:
                pixels = np.array(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"{self.file(index)} is broken ({error}). The command that made it replaces broken files: run it again."
            ) from error
        if pixels.dtype != np.uint8 or pixels.size != np.prod(self.shape):
            raise ValueError(f"{self.file(index)} has the shape {list(pixels.shape)}; expected {list(self.shape)}.")
        return pixels.reshape(self.shape)

    def absent(self, count: int) -> Iterator[int]:
        """Those of the first `count` images that have no file; one listing for each folder of 1,000."""
        for first in range(0, count, PER_FOLDER):
            last = min(first + PER_FOLDER, count)
            there = self.between(first, last)
            yield from (index for index in range(first, last) if index not in there)

    def clear_parts(self) -> None:
        """Remove what killed processes were writing: files of another name that nothing has touched for an hour."""
        limit = time.time() - _STALE
        for part in (self.path / "images").rglob(".*.part"):
            with contextlib.suppress(OSError):
                if part.stat().st_mtime < limit:
                    part.unlink()

    def between(self, first: int, last: int) -> set[int]:
        """Images from `first` to before `last`, of one folder of 1,000, that have a file, whole or not."""
        try:
            names = os.listdir(self.file(first).parent)
        except OSError:
            return set()
        numbers = (int(name[:-4]) for name in names if name.endswith(".png") and name[:-4].isdigit())
        return {number for number in numbers if first <= number < last}
