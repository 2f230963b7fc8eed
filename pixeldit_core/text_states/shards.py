"""A folder of encoded captions: shards of states, and an index that finds the states of a caption."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import atomic_path

VERSION = 1
_INDEX = "index.json"


@dataclass(frozen=True)
class StatesInfo:
    """What the states of a folder are."""

    family: str
    encoder: str  #         a folder or hub name
    dtype: str
    width: int  #           C
    max_tokens: int  #      that captions were cut to
    instruction: str = ""  # before every caption that is not empty
    version: int = VERSION

    def differences(self, other: StatesInfo) -> str:
        """What another one has different, for messages; "" = nothing. The folders of an encoder do not matter."""
        mine, others = (
            dataclasses.asdict(dataclasses.replace(info, encoder=Path(info.encoder).name)) for info in (self, other)
        )
        return "; ".join(f"{name} {mine[name]!r}, not {others[name]!r}" for name in mine if mine[name] != others[name])


class Place(NamedTuple):
    """Where the states of a caption are."""

    shard: int
    row: int  #    of `pooled`
    start: int  #  first row of `embeds`
    length: int  # tokens


@dataclass
class Index:
    """The captions that a folder has states of."""

    info: StatesInfo
    places: dict[str, Place]  # by `caption_key`

    def __contains__(self, caption: str) -> bool:
        return caption_key(caption) in self.places

    def place(self, caption: str) -> Place | None:
        """Where the states of a caption are; None = there are none."""
        return self.places.get(caption_key(caption))


def caption_key(caption: str) -> str:
    """A hash of exactly this text."""
    return hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"states-{number:05d}.safetensors"


def write_shard(
    folder: Path, number: int, info: StatesInfo, captions: list[str], embeds: list[Tensor], pooled: list[Tensor]
) -> dict[str, Place]:
    """Write the states of some captions as one file; returns their places.

    Args:
        embeds: of each caption [T, C].
        pooled: of each caption [C], or empty.
    """
    keys = [caption_key(caption) for caption in captions]
    lengths = [len(states) for states in embeds]
    tensors = {"embeds": torch.cat(embeds)} | ({"pooled": torch.stack(pooled)} if pooled else {})
    about = {"info": dataclasses.asdict(info), "captions": keys, "lengths": lengths}
    metadata = {name: json.dumps(value) for name, value in about.items()}
    with atomic_path(shard_path(folder, number)) as part:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
    return _places(number, keys, lengths)


def _places(number: int, keys: list[str], lengths: list[int]) -> dict[str, Place]:
    starts = accumulate(lengths, initial=0)
    return {
        key: Place(number, row, start, length)
        for row, (key, start, length) in enumerate(zip(keys, starts, lengths, strict=False))
    }


def write_index(folder: Path, index: Index) -> None:
    """Write index.json."""
    content = {**dataclasses.asdict(index.info), "captions": index.places}
    with atomic_path(folder / _INDEX) as part:
        part.write_text(json.dumps(content), encoding="utf-8")


def read_index(folder: Path) -> Index | None:
    """What a folder has; None = it has no index.

    Raises:
        ValueError: an index that is damaged, or of another version.
    """
    path = folder / _INDEX
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        places = {key: Place(*map(int, place)) for key, place in content.pop("captions").items()}
        found = content.get("version")
        info = StatesInfo(**content) if found == VERSION else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of text states ({error}). Encode again into a new folder.") from error
    if info is None:
        raise ValueError(f"{path} has version {found}; this program reads {VERSION}. Encode again into a new folder.")
    return Index(info, places)


def unindexed(folder: Path, index: Index) -> dict[str, Place]:
    """Places in complete shards that the index does not name: an encoder was stopped before it wrote the index.

    Raises:
        ValueError: a damaged shard, or one of other states.
    """
    indexed = {place.shard for place in index.places.values()}
    places: dict[str, Place] = {}
    for path in sorted(folder.glob("states-*.safetensors")):
        number = int(path.stem.partition("-")[2])
        if number not in indexed:
            places |= _read_places(path, number, index.info)
    return places


def _read_places(path: Path, number: int, info: StatesInfo) -> dict[str, Place]:
    try:
        about = {name: json.loads(value) for name, value in _open(path).metadata().items()}
        found = StatesInfo(**about["info"])
        places = _places(number, about["captions"], about["lengths"])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(_damaged(path, error)) from error
    if different := found.differences(info):
        raise ValueError(f"{path} has other text states ({different}). Choose an empty folder.")
    return places


def read_states(folder: Path, place: Place) -> tuple[Tensor, Tensor | None]:
    """Embeds [T, C] and pooled [C] or None of one caption.

    Raises:
        ValueError: the shard is missing or damaged.
    """
    path = shard_path(folder, place.shard)
    file = _open(path)
    try:
        embeds = file.get_slice("embeds")[place.start : place.start + place.length]
        pooled = file.get_slice("pooled")[place.row : place.row + 1][0] if "pooled" in file.keys() else None  # noqa: SIM118
    except (SafetensorError, IndexError) as error:
        raise ValueError(_damaged(path, error)) from error
    if len(embeds) != place.length:
        raise ValueError(_damaged(path, "it has fewer rows than index.json says"))
    return embeds, pooled


@lru_cache(maxsize=64)
def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, reason: object) -> str:
    return f"{path} is missing or damaged ({reason}). Delete index.json and this file, and encode again."
