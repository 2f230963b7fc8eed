"""The images of an evaluation: PNG files in folders of 1,000, each complete or not there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PER_FOLDER = 1000
_NAME = re.compile(r"[0-9]{6,12}\.png")
_STALE = 3600.0  # seconds
_MODES = {1: "L", 3: "RGB"}
_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of a PNG file, which Pillow does not check


@dataclass(frozen=True)
class ImageFolder:
    """images/012/012345.png below a folder; images of height, width and channels."""

    path: Path
    shape: tuple[int, int, int]

    def file(self, index: int) -> Path:
        """Of image `index`."""
        return self.path / "images" / f"{index // PER_FOLDER:03d}" / f"{index:06d}.png"

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Those that are not there, or broken.

        Raises:
            ValueError: something else is in the place of one.
        """
        return [index for index in indices if not self.is_whole(index)]

    def is_whole(self, index: int) -> bool:
        """Whether an image is there in the right size, with every checksum of its file right.

        Raises:
            ValueError: something else is in its place.
        """
        height, width, channels = self.shape
        try:
            data = self.file(index).read_bytes()
        except FileNotFoundError:
            return False
        except OSError:
            self._check_place(index)
            return False
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                fits = image.size == (width, height) and image.mode == _MODES[channels]
                image.verify()
        except Exception:  # Pillow may raise anything for a damaged file
            return False
        return fits and data.endswith(_END)

    def _check_place(self, index: int) -> None:
        """Raises ValueError if a folder is in the place of an image, or a file in that of its folder."""
        file = self.file(index)
        wrong = next((path for path in (file.parents[1], file.parent) if path.is_file()), file)
        if wrong.exists() and wrong.is_file() == (wrong != file):
            raise ValueError(
                f"{wrong} is a {'folder' if wrong == file else 'file'}, and image {index} belongs there. Move it away, "
                "then run the same command again."
            )

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, C].

        Raises:
            ValueError: a broken file, or one of another size.
        """
        height, width, channels = self.shape
        again = "The command that made it replaces broken files: run it again."
        try:
            with Image.open(self.file(index), formats=["PNG"]) as image:
                pixels, mode = np.array(image), image.mode
        except Exception as error:  # Pillow may raise anything for a damaged file
            raise ValueError(f"{self.file(index)} is broken ({error}). {again}") from error
        if (*pixels.shape[:2], mode) != (height, width, _MODES[channels]):
            raise ValueError(
                f"{self.file(index)} is {pixels.shape[1]} x {pixels.shape[0]} {mode}; expected {width} x {height} "
                f"{_MODES[channels]}. {again}"
            )
        return pixels.reshape(self.shape)

    def count(self, most: int) -> int:
        """How many of the first `most` images have a file, from the folders that are there."""
        try:
            names = os.listdir(self.path / "images")
        except OSError:
            return 0
        starts = {int(name) * PER_FOLDER for name in names if re.fullmatch("[0-9]{3,9}", name)}
        return sum(len(self.between(first, min(first + PER_FOLDER, most))) for first in starts)

    def remove(self, count: int) -> None:
        """Remove the first `count` images, and folders that are empty then: nothing else that somebody put there."""
        for index in range(count):
            self.file(index).unlink(missing_ok=True)
        folders = [self.file(first).parent for first in range(0, count, PER_FOLDER)]
        for folder in [*folders, self.path / "images"]:
            with contextlib.suppress(OSError):
                folder.rmdir()

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
        numbers = (int(name[:-4]) for name in names if _NAME.fullmatch(name))
        return {number for number in numbers if first <= number < last}
