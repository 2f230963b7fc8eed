"""Images to measure: a folder of files or the arr_0 of an .npz file, read in order without holding all of them."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..resize import Size, center_crop, cover, upright

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_LOSSY = {"JPEG", "MPO", "WEBP"}  # formats, whatever the names of the files
_IGNORED = "__MACOSX"
_LARGEST = 2**16  # pixels of a side
_THREADS, _AHEAD = 8, 128


class Labeled(NamedTuple):
    """An image, uint8 [H, W, 3], and the class that it was made for, where its file says."""

    pixels: np.ndarray
    label: int | None


class ImageSource(Protocol):
    """Images in an order of their own."""

    path: Path
    kind: str
    is_lossy: bool  # some of the files read so far are JPEG or WebP

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def size(self) -> Size:
        """Height and width of all images."""
        ...

    def images(self) -> Iterator[Labeled]:
        """Every image.

        Raises:
            ValueError: a broken image, or one of another size.
        """
        ...


@dataclass
class FolderSource:
    """Image files of a folder and its sub-folders, sorted by path."""

    path: Path
    files: list[Path]
    crop: Size | None = None  # scale and center-crop to this size, as ADM prepares ImageNet; None = as they are
    kind: str = "folder"  # or "run": PNG files, as they were generated
    is_lossy: bool = field(default=False, init=False)

    @property
    def count(self) -> int:
        """Files."""
        return len(self.files)

    @property
    def size(self) -> Size:
        """Of the first image, or of the crop."""
        height, width, _ = self._read(self.files[0]).pixels.shape
        return height, width

    def images(self) -> Iterator[Labeled]:
        """Read by threads, in order."""
        size = self.size
        with ThreadPoolExecutor(_THREADS, "read") as pool:
            for first in range(0, self.count, _AHEAD):
                files = self.files[first : first + _AHEAD]
                for file, image in zip(files, pool.map(self._read, files), strict=True):
                    if image.pixels.shape[:2] != size:
                        raise ValueError(_other_size(self.path, file, image.pixels.shape, self.files[0], size))
                    yield image

    def _read(self, file: Path) -> Labeled:
        try:
            with Image.open(file, formats=["PNG"] if self.kind == "run" else None) as image:
                self.is_lossy |= image.format in _LOSSY
                text = getattr(image, "text", {}).get("pixeldit", "{}")
                image = upright(image, 3)
                if self.crop is not None:
                    image = center_crop(cover(image, self.crop), self.crop)
                return Labeled(np.asarray(image), _label(text))
        except Exception as error:  # a decoder may raise anything
            raise ValueError(
                f"{file} is not a readable image ({error}). Remove it, or, if it is of an evaluation, run the command "
                "that made it again."
            ) from error


def _label(text: str) -> int | None:
    """The class in the text chunk of our PNG files; None = there is none, or the chunk is of another program."""
    try:
        entry = json.loads(text)["entry"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if type(entry) is int and 0 <= entry < 2**31 else None


def _other_size(folder: Path, file: Path, shape: tuple[int, ...], first: Path, size: Size) -> str:
    return (
        f"{folder} has images of several sizes: {file.name} is {shape[1]} x {shape[0]}, {first.name} is "
        f"{size[1]} x {size[0]}. Keep those of one size; if it is the reference, --crop-reference scales and crops "
        "them to the size of the samples."
    )


@dataclass
class ArchiveSource:
    """The array arr_0 of an .npz file, uint8 [N, H, W, 3], streamed."""

    path: Path
    shape: tuple[int, ...]
    kind: str = "npz"
    is_lossy: bool = False

    @property
    def count(self) -> int:
        """Images."""
        return self.shape[0]

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.shape[1], self.shape[2]

    def images(self) -> Iterator[Labeled]:
        """In their order."""
        height, width, channels = self.shape[1:]
        length = height * width * channels
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            _read_header(file)
            for index in range(self.count):
                try:
                    data = file.read(length)
                except Exception as error:  # of damaged files, zipfile passes on what its decoders raise
                    raise ValueError(f"{self.path} is damaged after {index} images ({error}). Get it again.") from error
                if len(data) != length:
                    raise ValueError(f"{self.path} ends after {index} of {self.count} images. Get it again.")
                pixels = np.frombuffer(data, np.uint8).reshape(height, width, channels)
                yield Labeled(np.broadcast_to(pixels, (height, width, 3)), None)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype of an array in an .npz file; nothing in it is unpickled."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def find_images(folder: Path) -> list[Path]:
    """Image files of a folder and the folders in it, sorted; links are followed, hidden files are not seen.

    Raises:
        ValueError: a folder that cannot be read.
    """
    found: list[Path] = []
    waiting, seen = [str(folder)], set()
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:  # a link to a folder that was listed, or to one above
            continue
        seen.add(real)
        try:
            with os.scandir(current) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name != _IGNORED]
        except OSError as error:
            raise ValueError(f"the folder {current} cannot be read ({error.strerror}).") from error
        waiting += [entry.path for entry in shown if entry.is_dir()]
        named = (Path(entry.path) for entry in shown if not entry.is_dir())
        found += [path for path in named if path.suffix.lower() in _SUFFIXES]
    return sorted(found)


def open_images(path: Path, crop: Size | None = None) -> ImageSource:
    """A folder or an .npz file.

    Raises:
        ValueError: no images there.
    """
    if not path.exists():
        raise ValueError(f"{path} is not there. Name a folder of images, or an .npz file.")
    if path.is_dir():
        files = find_images(path)
        if not files:
            raise ValueError(f"{path} has no images. Name a folder of PNG or JPEG files, or an .npz file.")
        return FolderSource(path, files, crop)
    return ArchiveSource(path, _check_archive(path))


def archive_shape(path: Path) -> tuple[int, ...] | None:
    """The shape [N, H, W, C] of the images of an .npz file, from its headers; None = it has none."""
    try:
        return _check_archive(path)
    except ValueError:
        return None


def _check_archive(path: Path) -> tuple[int, ...]:
    """Shape of arr_0. Raises ValueError, with what is there, unless it is complete and holds images."""
    expected = "expected arr_0, uint8 [N, H, W, 3]. Name a folder of images, or an .npz file."
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "arr_0.npy" not in names:
                raise ValueError(f"it has {', '.join(names[:4])[:80] or 'nothing'}")
            with archive.open("arr_0.npy") as file:
                shape, fortran, dtype = _read_header(file)
                size = archive.getinfo("arr_0.npy").file_size - file.tell()
    except Exception as error:  # zipfile and numpy raise many kinds of errors for damaged files
        raise ValueError(f"{path} has no images that can be read ({error}); {expected}") from error
    found = f"its arr_0 is {dtype}{' in Fortran order' if fortran else ''} {list(shape)}"
    kind_fits = dtype == np.uint8 and not fortran and len(shape) == 4 and shape[3] in (1, 3)
    if not kind_fits or min(shape) < 1 or max(shape[1:]) > _LARGEST:
        raise ValueError(f"{path} has no images: {found}; {expected}")
    if size != math.prod(shape):
        raise ValueError(f"{path} is damaged: {found}, and {size:,} bytes are stored for it. Get it again.")
    return shape
