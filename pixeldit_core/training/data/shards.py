"""WebDataset shards: tar files of images with a class or a caption each, for sets too large for single files.

A shard's members are listed once and the list is kept beside it, so that images can be read in any order, each once in
an epoch, and a run can go on in the middle of one.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ...atomic import atomic_path
from ...sizes import Size
from ..extras import require
from .batch import ImageData
from .folder import SUFFIXES
from .transforms import Transform

_INDEX = ".index.json"


class Member(NamedTuple):
    """A sample of a shard: where its image is, its size, and its class or caption."""

    key: str
    offset: int
    length: int
    width: int
    height: int
    label: int | None
    caption: str | None


class ShardData(ImageData):
    """The samples of shards."""

    def __init__(
        self, shards: Sequence[tuple[Path, list[Member]]], sizes: Sequence[Size], transform: Transform
    ) -> None:
        super().__init__(transform)
        self._places = [(path, member) for path, members in shards for member in members]
        self._sizes = sizes
        self.groups = [len(members) for _, members in shards]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> Image.Image:
        path, member = self._places[index]
        with path.open("rb") as file:
            file.seek(member.offset)
            with Image.open(io.BytesIO(file.read(member.length))) as image:
                image.load()
                return image

    def target(self, index: int) -> tuple[int | None, str | None]:
        member = self._places[index][1]
        return member.label, member.caption

    def name(self, index: int) -> str:
        path, member = self._places[index]
        return f"{path}/{member.key}"

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def find_shards(pattern: str) -> list[Path]:
    """The tar files of a pattern such as train-{0000..0099}.tar, or of a folder.

    Raises:
        ImportError: webdataset is missing.
        ValueError: none, or some that are not there.
    """
    if Path(pattern).is_dir():
        found = sorted(Path(pattern).glob("*.tar"))
    else:
        found = [Path(name) for name in require("webdataset.shardlists").expand_urls(pattern)]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        detail = f"{len(missing)} of {len(found)} are not there, such as {missing[0]}" if missing else "none are there"
        raise ValueError(f"data.path {pattern} names WebDataset shards (.tar files on a disk), and {detail}.")
    return found


def list_members(path: Path) -> list[Member]:
    """The samples of a shard, in its order; the list is kept beside it, if the folder can be written to.

    Raises:
        ValueError: not a tar file, or one without images.
    """
    index = path.with_name(path.name + _INDEX)
    stamp = [path.stat().st_size, path.stat().st_mtime_ns]
    if index.is_file():
        kept = json.loads(index.read_text("utf-8"))
        if kept["stamp"] == stamp:
            return [Member(*entry) for entry in kept["members"]]
    members = _scan(path)
    if os.access(path.parent, os.W_OK):
        with atomic_path(index) as part:
            part.write_text(json.dumps({"stamp": stamp, "members": members}), "utf-8")
    return members


def _scan(path: Path) -> list[Member]:
    split = require("webdataset.tariterators").base_plus_ext
    samples: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                key, extension = split(entry.name)
                if entry.isfile() and key is not None:
                    _add(samples.setdefault(key, {}), archive, entry, f".{extension.lower()}")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path} is not a tar file that can be read ({error}). Get it again.") from error
    found = [_member(key, sample) for key, sample in samples.items() if "image" in sample]
    if not found:
        raise ValueError(f"{path} has no images ({', '.join(sorted(SUFFIXES))}).")
    return found


def _add(sample: dict[str, Any], archive: tarfile.TarFile, entry: tarfile.TarInfo, suffix: str) -> None:
    if suffix in SUFFIXES:
        sample["image"] = (entry.offset_data, entry.size)
        sample["size"] = _image_size(archive, entry)
    elif suffix in (".cls", ".txt", ".json"):
        content = archive.extractfile(entry)
        assert content is not None
        sample[suffix] = content.read()


def _image_size(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> tuple[int, int]:
    """Width and height; 0 of an image that is broken, which is reported when it is read."""
    try:
        content = archive.extractfile(entry)
        assert content is not None
        with Image.open(content) as image:
            return image.size
    except OSError:
        return 0, 0


def _member(key: str, sample: dict[str, Any]) -> Member:
    about = json.loads(sample[".json"]) if ".json" in sample else {}
    label = sample[".cls"].decode() if ".cls" in sample else about.get("label", about.get("cls"))
    caption = sample[".txt"].decode("utf-8", "replace") if ".txt" in sample else about.get("caption", about.get("text"))
    (offset, length), (width, height) = sample["image"], sample["size"]
    text = None if caption is None else str(caption).strip()
    return Member(key, offset, length, width, height, None if label is None else int(label), text)
