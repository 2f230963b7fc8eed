"""What a WebDataset shard contains and where: listed once, and kept as SHARD.tar.index.json."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ...atomic import atomic_path
from ...extras import require
from .files import SUFFIXES, header_size

log = logging.getLogger(__name__)

_FORMAT = 1


class Sample(NamedTuple):
    """An image of a shard: where it is, its size as it is shown, and its class or caption."""

    key: str
    offset: int
    length: int
    height: int  # 0 if it is broken
    width: int
    label: int | None
    caption: str | None


def list_samples(path: Path) -> list[Sample]:
    """The samples of a shard that have an image, in its order.

    The list is kept beside the shard, or in a cache folder if that one is read-only, and made again when the shard
    changes.

    Raises:
        ImportError: webdataset is missing.
        ValueError: not a tar file, one without images, a label or text that cannot be read.
    """
    status = path.stat()
    stamp = [_FORMAT, status.st_size, status.st_mtime_ns]
    for index in _indexes(path):
        samples = _read(index, stamp)
        if samples is not None:
            return samples
    samples = _scan(path)
    if not any(_write(index, stamp, samples) for index in _indexes(path)):
        log.warning("the list of the samples of %s cannot be kept, so it is made at every start.", path)
    return samples


def _indexes(path: Path) -> Iterator[Path]:
    """Files that may have the list of a shard."""
    yield path.with_name(f"{path.name}.index.json")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    yield cache / "pixeldit" / "shards" / f"{path.name}-{digest}.json"


def _read(index: Path, stamp: list[int]) -> list[Sample] | None:
    """The kept list; None if there is none of this shard."""
    try:
        kept = json.loads(index.read_text("utf-8"))
        return [Sample(*entry) for entry in kept["samples"]] if kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(index: Path, stamp: list[int], samples: list[Sample]) -> bool:
    try:
        with atomic_path(index) as part:
            part.write_text(json.dumps({"stamp": stamp, "samples": samples}), "utf-8")
        return True
    except OSError:
        return False


def _scan(path: Path) -> list[Sample]:
    split = require("webdataset.tariterators").base_plus_ext
    parts: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                key, extension = split(entry.name)
                if entry.isfile() and key is not None:
                    _add(parts.setdefault(key, {}), archive, entry, f".{extension.lower()}")
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path} is not an uncompressed tar file that can be read ({error}). Get it again.") from error
    samples = [_sample(path, key, of_key) for key, of_key in parts.items() if "image" in of_key]
    if not samples:
        raise ValueError(f"{path} has no images ({', '.join(SUFFIXES)}).")
    return samples


def _check_end(path: Path, offset: int) -> None:
    """Raises TarError unless the mark of the end follows the last entry: tarfile takes a shard that is cut off."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.TarError("it is cut off")


def _add(parts: dict[str, Any], archive: tarfile.TarFile, entry: tarfile.TarInfo, suffix: str) -> None:
    if suffix in SUFFIXES:
        parts["image"] = (entry.offset_data, entry.size)
        parts["size"] = header_size(cast(BinaryIO, archive.extractfile(entry)))
    elif suffix in (".cls", ".txt", ".json"):
        parts[suffix] = cast(BinaryIO, archive.extractfile(entry)).read()


def _sample(path: Path, key: str, parts: Mapping[str, Any]) -> Sample:
    try:
        (offset, length), (height, width) = parts["image"], parts["size"]
        return Sample(key, offset, length, height, width, _label(parts), _caption(parts))
    except ValueError as error:
        raise ValueError(f"{path}: the class or caption of {key} cannot be read ({error}).") from error


def _label(parts: Mapping[str, Any]) -> int | None:
    if ".cls" in parts:
        return int(parts[".cls"].decode())
    label = _about(parts).get("label", _about(parts).get("cls"))
    if label is not None and (not isinstance(label, int) or isinstance(label, bool)):
        raise ValueError(f"label {label!r} is not a whole number")
    return label


def _caption(parts: Mapping[str, Any]) -> str | None:
    if ".txt" in parts:
        return parts[".txt"].decode("utf-8-sig").strip()
    caption = _about(parts).get("caption", _about(parts).get("text"))
    return None if caption is None else str(caption).strip()


def _about(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    about = json.loads(parts.get(".json", b"{}"))
    if not isinstance(about, Mapping):
        raise ValueError("its .json file is not an object")
    return about
