"""WebDataset shards: tar files of images with a class or a caption each, for sets too large for single files.

A shard's samples are listed once and the list is kept beside it, so that images can be read in any order, each once in
an epoch, and a run can go on in the middle of one.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...extras import require
from ...sizes import Size
from ...text import shorten_list
from .batch import ImageData
from .files import check_folder, open_image
from .packed import PackedStrings
from .shard_index import Sample, list_samples
from .transforms import Transform

_REMOTE = ("http:", "https:", "pipe:", "s3:", "gs:", "hf:", "az:")
Shards = Sequence[tuple[Path, list[Sample]]]


class ShardData(ImageData):
    """The samples of shards.

    Args:
        default_caption: of samples without one.
    """

    def __init__(
        self, shards: Shards, sizes: Sequence[Size], transform: Transform, default_caption: str | None = None
    ) -> None:
        super().__init__(transform)
        samples = [sample for _, of_shard in shards for sample in of_shard]
        self._paths, self._sizes = [path for path, _ in shards], sizes
        self.groups = [len(of_shard) for _, of_shard in shards]
        self._ends = np.cumsum(self.groups)
        self._keys = PackedStrings(sample.key for sample in samples)
        self._places = np.array([(sample.offset, sample.length) for sample in samples], dtype=np.int64)
        self._labels = _labels(samples)
        self._captions = _captions(samples, default_caption)

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> Image.Image:
        offset, length = self._places[index].tolist()
        with self._path(index).open("rb") as file:
            file.seek(offset)
            return open_image(io.BytesIO(file.read(length)))

    def target(self, index: int) -> tuple[int | None, str | None]:
        label = None if self._labels is None else int(self._labels[index])
        return label, None if self._captions is None else self._captions[index]

    def name(self, index: int) -> str:
        return f"{self._path(index)}/{self._keys[index]}"

    def sizes(self) -> Sequence[Size]:
        return self._sizes

    def _path(self, index: int) -> Path:
        return self._paths[int(np.searchsorted(self._ends, index, side="right"))]


def _labels(samples: Sequence[Sample]) -> np.ndarray | None:
    """Where all have one."""
    labels = [sample.label for sample in samples if sample.label is not None]
    return np.array(labels, dtype=np.int32) if len(labels) == len(samples) else None


def _captions(samples: Sequence[Sample], default: str | None) -> PackedStrings | None:
    """Where all have one."""
    captions = [default if sample.caption is None else sample.caption for sample in samples]
    present = [caption for caption in captions if caption is not None]
    return PackedStrings(present) if len(present) == len(samples) else None


def find_shards(pattern: str) -> list[Path]:
    """The tar files of a pattern such as train-{0000..0099}.tar, or of a folder.

    Raises:
        ImportError: webdataset is missing.
        ValueError: none, or some that are not there.
    """
    if pattern.startswith(_REMOTE):
        raise ValueError(f"data.path {pattern} is not on a disk: images are read in any order. Download the shards.")
    if Path(pattern).is_dir():
        check_folder(Path(pattern))
        found = sorted(Path(pattern).glob("*.tar"))
    else:
        found = [Path(name) for name in require("webdataset.shardlists").expand_urls(pattern)]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        detail = f"{len(missing)} of {len(found)} are not there, such as {missing[0]}" if missing else "none are there"
        raise ValueError(f"data.path {pattern} names WebDataset shards (.tar files on a disk), and {detail}.")
    return found


def read_shards(pattern: str) -> Shards:
    """The shards of a pattern or folder, and their samples.

    Raises:
        ImportError: webdataset is missing.
        ValueError: shards that are not there, damaged, or without images.
    """
    return [(path, list_samples(path)) for path in find_shards(pattern)]


def check_labels(shards: Shards, num_classes: int) -> None:
    """Raises ValueError unless every sample has a class of the network."""
    named = [(f"{path}/{sample.key}", sample.label) for path, samples in shards for sample in samples]
    missing = [name for name, label in named if label is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(named)} samples have no class: {shorten_list(missing, 3)}. Each needs a number in "
            'a .cls file, or {"label": 5} in a .json file.'
        )
    outside = [f"{name} ({label})" for name, label in named if not 0 <= (label or 0) < num_classes]
    if outside:
        raise ValueError(
            f"{len(outside)} of {len(named)} samples have a class outside of the network's 0 to {num_classes - 1}: "
            f"{shorten_list(outside, 3)}. Set model.params.num_classes."
        )


def captions_of(shards: Shards, default: str | None = None) -> list[str]:
    """The caption of each sample.

    Raises:
        ValueError: samples without one, if there is no default.
    """
    named = [(f"{path}/{sample.key}", sample.caption) for path, samples in shards for sample in samples]
    missing = [name for name, caption in named if caption is None]
    if missing and default is None:
        raise ValueError(
            f"{len(missing)} of {len(named)} samples have no caption: {shorten_list(missing, 3)}. Each needs a .txt "
            'file, or {"caption": "a cat"} in a .json file; or set a default caption.'
        )
    return [default or "" if caption is None else caption for _, caption in named]


def image_sizes(shards: Shards) -> list[Size]:
    """Height and width of each image."""
    return [(s.height, s.width) for s in itertools.chain.from_iterable(samples for _, samples in shards)]
