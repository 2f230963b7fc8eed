"""Images with captions: a text file beside each, or one list for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...sizes import Size
from ...text import shorten_list
from .batch import ImageData
from .files import SUFFIXES, check_folder, find_images, open_image
from .packed import PackedStrings
from .transforms import Transform

_LIST = "metadata.jsonl"  # of Hugging Face's image folders


class CaptionData(ImageData):
    """Images of files with their captions."""

    def __init__(self, pairs: Sequence[tuple[str, str]], sizes: Sequence[Size], transform: Transform) -> None:
        super().__init__(transform)
        self._files, self._captions = (PackedStrings(strings) for strings in zip(*pairs, strict=True))
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Image.Image:
        return open_image(self._files[index])

    def target(self, index: int) -> tuple[int | None, str | None]:
        return None, self._captions[index]

    def name(self, index: int) -> str:
        return self._files[index]

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def read_captions(folder: Path, default: str | None = None) -> list[tuple[str, str]]:
    """The images of a folder, sorted, and the caption of each: from metadata.jsonl, else from a .txt of its name.

    Args:
        default: the caption of images without one; None = an error. An empty text is one.

    Raises:
        ValueError: no images, images without a caption, texts that are not readable.
    """
    check_folder(folder)
    files = list(find_images(folder))
    if not files:
        raise ValueError(f"{folder} has no images ({', '.join(SUFFIXES)}).")
    listed = _read_list(folder)
    found = [_caption(folder, file, listed) for file in files]
    missing = [file for file, caption in zip(files, found, strict=True) if caption is None]
    if missing and default is None:
        names = [str(Path(file).relative_to(folder)) for file in missing]
        raise ValueError(
            f"{len(missing)} of {len(files)} images in {folder} have no caption: {shorten_list(names, 3)}. Put a text "
            f"file such as {Path(names[0]).with_suffix('.txt')} beside each, or set a default caption."
        )
    return [(file, default or "" if caption is None else caption) for file, caption in zip(files, found, strict=True)]


def _caption(folder: Path, file: str, listed: dict[Path, str]) -> str | None:
    path = Path(file)
    caption = listed.get(path.relative_to(folder))
    if caption is None and path.with_suffix(".txt").is_file():
        caption = _read_text(path.with_suffix(".txt")).strip()
    return caption


def _read_list(folder: Path) -> dict[Path, str]:
    file = folder / _LIST
    if not file.is_file():
        return {}
    lines = enumerate(_read_text(file).split("\n"), 1)  # not splitlines: a caption may hold other line separators
    captions = dict(_parse(file, number, line) for number, line in lines if line.strip())
    lost = [str(path) for path in captions if not (folder / path).is_file()]
    if lost:
        raise ValueError(f"{file} names {len(lost)} images that are not there: {shorten_list(lost, 3)}.")
    return captions


def _parse(file: Path, number: int, line: str) -> tuple[Path, str]:
    try:
        entry = json.loads(line)
        name, text = entry["file_name"], entry["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'line {number} of {file} has no "file_name" and "text" as JSON ({error}).') from error
    if not isinstance(name, str) or not isinstance(text, str):
        raise ValueError(f'line {number} of {file}: "file_name" and "text" must be texts.')
    return Path(name), text.strip()


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it again.") from error
