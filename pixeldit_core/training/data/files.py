"""Image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ...sizes import Size
from ...text import shorten_list

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNKNOWN: Size = (0, 0)  # of a broken image
_IGNORED = {"__MACOSX"}
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # of EXIF


def check_folder(folder: Path) -> None:
    """Raises ValueError unless the folder can be listed."""
    if folder.is_symlink() and not folder.exists():
        raise ValueError(f"data.path {folder} is a link to {os.readlink(folder)}, which is not there.")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ValueError(f"data.path {folder} {what}; name a folder of images.")
    list_folder(folder)


def list_folder(folder: Path | str) -> list[os.DirEntry[str]]:
    """Its entries by name, without hidden ones.

    Raises:
        ValueError: it cannot be read, or has a link to nowhere.
    """
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _IGNORED]
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be read ({error.strerror}).") from error
    lost = sorted(entry.name for entry in shown if entry.is_symlink() and not os.path.exists(entry.path))
    if lost:
        raise ValueError(
            f"{folder} has links to files that are not there: {shorten_list(lost, 3)}. Remove or mend them."
        )
    return sorted(shown, key=lambda entry: entry.name)


def has_image_name(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def find_images(folder: Path) -> Iterator[str]:
    """Image files of a folder and the folders in it, by name; links are followed, though not in circles.

    Raises:
        ValueError: a folder that cannot be read.
    """
    yield from _find(str(folder), frozenset())


def _find(folder: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in list_folder(folder):
        if entry.is_dir():
            yield from _find(entry.path, above | {real})
        elif has_image_name(entry.name):
            yield entry.path


def open_image(source: Path | str | BinaryIO) -> Image.Image:
    """The decoded image of a file; raises whatever Pillow raises for a damaged one."""
    with Image.open(source) as image:
        image.load()
        return image


def header_size(source: Path | str | BinaryIO) -> Size:
    """Height and width, as it is shown; UNKNOWN for a broken file, which is reported when it is read."""
    try:
        with Image.open(source) as image:
            # Pillow turns TIFF files by itself
            turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # a decoder may raise anything
        return UNKNOWN
