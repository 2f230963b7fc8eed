"""Images to measure: a folder of files or the arr_0 of an .npz file, read in order without holding all of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..resize import Size, center_crop, cover, upright

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_LOSSY = {".jpg", ".jpeg", ".webp"}
_THREADS, _AHEAD = 8, 128


class Labeled(NamedTuple):
    """An image, uint8 [H, W, 3], and the class that it was made for, where its file says."""

    pixels: np.ndarray
    label: int | None


class ImageSource(Protocol):
    """Images in an order of their own."""

    path: Path
    kind: str
    is_lossy: bool  # some files are JPEG or WebP

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
    kind: str = "folder"
    is_lossy: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_lossy = any(file.suffix.lower() in _LOSSY for file in self.files)

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
            with Image.open(file) as image:
                text = getattr(image, "text", {}).get("pixeldit", "{}")
                image = upright(image, 3)
                if self.crop is not None:
                    image = center_crop(cover(image, self.crop), self.crop)
                return Labeled(np.asarray(image), json.loads(text).get("entry"))
        except (OSError, SyntaxError, ValueError, AttributeError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{file} is not a readable image ({error}). Remove it, or, if it is of an evaluation, run the command "
                "that made it again."
            ) from error


def _other_size(folder: Path, file: Path, shape: tuple[int, ...], first: Path, size: Size) -> str:
    return (
        f"{folder} has images of several sizes: {file.name} is {shape[1]} x {shape[0]}, {first.name} is "
        f"{size[1]} x {size[0]}. Give --crop-reference to scale and crop a reference to the size of the samples."
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
        one = self.shape[1:]
        length = int(np.prod(one))
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            read_header(file)
            for index in range(self.count):
                try:
                    data = file.read(length)
                except zipfile.BadZipFile as error:
                    raise ValueError(f"{self.path} is damaged after {index} images ({error}). Get it again.") from error
                if len(data) != length:
                    raise ValueError(f"{self.path} ends after {index} of {self.count} images. Get it again.")
                pixels = np.frombuffer(data, np.uint8).reshape(one)
                yield Labeled(np.broadcast_to(pixels, (*one[:2], 3)), None)


def read_header(file: object) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype of an array in an .npz file.

    Raises:
        ValueError: not an array.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]  # numpy's stubs want a path
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)  # type: ignore[arg-type]


def open_images(path: Path, crop: Size | None = None) -> ImageSource:
    """A folder or an .npz file.

    Raises:
        ValueError: no images there.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and not _hidden(file))
        if not files:
            raise ValueError(f"{path} has no images. Name a folder of PNG or JPEG files, or an .npz file.")
        return FolderSource(path, files, crop)
    shape = archive_shape(path)
    if shape is None or len(shape) != 4 or shape[-1] not in (1, 3) or not shape[0]:
        found = (
            "is not there" if not path.exists() else f"has no images: its arr_0 is {shape or 'missing or not uint8'}"
        )
        raise ValueError(f"{path} {found}; expected uint8 [N, H, W, 3]. Name a folder of images, or an .npz file.")
    return ArchiveSource(path, shape)


def archive_shape(path: Path, name: str = "arr_0") -> tuple[int, ...] | None:
    """The shape of an array of uint8 in an .npz file, from its header; None = there is none."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = read_header(file)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return None if fortran or dtype != np.uint8 else shape


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")
