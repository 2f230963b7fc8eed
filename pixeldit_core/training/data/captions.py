"""Images with captions: a text file beside each, or one list for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...sizes import Size
from .batch import ImageData
from .folder import SUFFIXES, check_folder, image_files, open_image
from .transforms import Transform

_LIST = "metadata.jsonl"  # of Hugging Face's image folders


class CaptionData(ImageData):
    """Images of files with their captions."""

    def __init__(self, pairs: Sequence[tuple[Path, str]], sizes: Sequence[Size], transform: Transform) -> None:
        super().__init__(transform)
        self._pairs, self._sizes = pairs, sizes

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Image.Image:
        return open_image(self._pairs[index][0])

    def target(self, index: int) -> tuple[int | None, str | None]:
        return None, self._pairs[index][1]

    def name(self, index: int) -> str:
        return str(self._pairs[index][0])

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def read_captions(folder: Path, default: str | None = None) -> list[tuple[Path, str]]:
    """The images of a folder, sorted, and the caption of each: from metadata.jsonl, else from a .txt of its name.

    Args:
        default: the caption of images without one; None = an error.

    Raises:
        ValueError: no images, images without a caption, a list that is not readable.
    """
    check_folder(folder)
    files = image_files(folder)
    if not files:
        raise ValueError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}).")
    listed = _read_list(folder)
    pairs, missing = [], []
    for path in files:
        caption = listed.get(path.relative_to(folder).as_posix(), _beside(path))
        if caption is None and default is None:
            missing.append(path)
        pairs.append((path, default or "" if caption is None else caption))
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(files)} images in {folder} have no caption, the first is {missing[0].name}: put a "
            f"text file {missing[0].stem}.txt beside it, or set data.default_caption."
        )
    return pairs


def _beside(path: Path) -> str | None:
    file = path.with_suffix(".txt")
    return file.read_text("utf-8-sig", errors="replace").strip() if file.is_file() else None


def _read_list(folder: Path) -> dict[str, str]:
    file = folder / _LIST
    if not file.is_file():
        return {}
    captions = {}
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            captions[str(entry["file_name"])] = str(entry["text"]).strip()
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'line {number} of {file} has no "file_name" and "text" as JSON ({error}).') from error
    return captions
