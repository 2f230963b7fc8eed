"""Image folders: a folder for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ...sizes import Size
from .batch import ImageData
from .transforms import Transform

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


class FolderData(ImageData):
    """Images of the files of a folder; a label is that of the class folder that a file is in."""

    def __init__(self, files: Sequence[tuple[Path, int]], sizes: Sequence[Size], transform: Transform) -> None:
        super().__init__(transform)
        self._files, self._sizes = files, sizes

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Image.Image:
        return open_image(self._files[index][0])

    def target(self, index: int) -> tuple[int | None, str | None]:
        return self._files[index][1], None

    def name(self, index: int) -> str:
        return str(self._files[index][0])

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def open_image(path: Path) -> Image.Image:
    """The decoded image of a file; raises whatever Pillow raises for a damaged one."""
    with Image.open(path) as image:
        image.load()
        return image


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted.

    Raises:
        ValueError: no such folder, or none in it.
    """
    check_folder(folder)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"{folder} has no class folders. Put the images of each class into a folder of its own, such as "
            f"{folder / 'cat'}."
        )
    return names


def class_files(folder: Path, labels: Mapping[str, int]) -> list[tuple[Path, int]]:
    """The image files of all classes with their labels: class by class, sorted.

    Raises:
        ValueError: missing or unexpected class folders, or one without images.
    """
    found = set(class_folders(folder))
    for names, problem in ((set(labels) - found, "lacks"), (found - set(labels), "has unexpected")):
        if names:
            raise ValueError(f"{folder} {problem} class folders: {', '.join(sorted(names)[:8])}.")
    files = []
    for name, label in labels.items():
        of_class = image_files(folder / name)
        if not of_class:
            raise ValueError(f"{folder / name} has no images ({', '.join(sorted(SUFFIXES))}).")
        files += [(path, label) for path in of_class]
    return files


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder and the folders in it, sorted; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def check_folder(folder: Path) -> None:
    """Raises ValueError unless the folder can be listed."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ValueError(f"data.path {folder} {what}; name a folder of images.")
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise ValueError(f"data.path {folder} cannot be read ({error.strerror}).") from error
