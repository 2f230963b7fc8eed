"""Image folders: a folder for each class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...sizes import Size
from ...text import shorten_list
from .batch import ImageData
from .files import SUFFIXES, check_folder, find_images, has_image_name, list_folder, open_image
from .packed import PackedStrings
from .transforms import Transform

log = logging.getLogger(__name__)


class FolderData(ImageData):
    """Images of the files of a folder; a label is that of the class folder that a file is in."""

    def __init__(self, files: Sequence[tuple[str, int]], sizes: Sequence[Size], transform: Transform) -> None:
        super().__init__(transform)
        self._files, self._sizes = PackedStrings(file for file, _ in files), sizes
        self._labels = np.array([label for _, label in files], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Image.Image:
        return open_image(self._files[index])

    def target(self, index: int) -> tuple[int | None, str | None]:
        return int(self._labels[index]), None

    def name(self, index: int) -> str:
        return self._files[index]

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted.

    Raises:
        ValueError: no such folder, or none in it.
    """
    check_folder(folder)
    entries = list_folder(folder)
    names = [entry.name for entry in entries if entry.is_dir()]
    loose = [entry.name for entry in entries if not entry.is_dir() and has_image_name(entry.name)]
    if not names:
        found = f"{len(loose)} images, but no class folders" if loose else "no class folders"
        raise ValueError(
            f"{folder} has {found}. Put the images of each class into a folder of its own, such as {folder / 'cat'}."
        )
    if loose:
        log.warning("%s: %d images outside of the class folders are left out (%s).", folder, len(loose), loose[0])
    return names


def class_files(folder: Path, labels: Mapping[str, int]) -> list[tuple[str, int]]:
    """The image files of all classes with their labels: class by class, sorted.

    Raises:
        ValueError: missing or unexpected class folders, or some without images.
    """
    found = set(class_folders(folder))
    for names, problem in ((set(labels) - found, "lacks"), (found - set(labels), "has unexpected")):
        if names:
            raise ValueError(f"{folder} {problem} class folders: {shorten_list(sorted(names), 8)}.")
    by_class = {name: list(find_images(folder / name)) for name in labels}
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise ValueError(
            f"{folder} has class folders without images ({', '.join(SUFFIXES)}): {shorten_list(empty, 8)}. Fill or "
            "remove them."
        )
    return [(file, labels[name]) for name, files in by_class.items() for file in files]
