"""The data of a recipe, checked against the model before a run starts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from pathlib import Path
from typing import TypeVar

from ...model import Model
from ...sampling import check_size
from ...sizes import Size
from ...spec import ModelSpec
from ...text import shorten_list
from ..config import DataConfig
from .arrays import CIFAR10_NAMES, MNIST_NAMES, ArrayData, read_cifar10, read_mnist, relabel
from .batch import ImageData
from .buckets import bucket_sizes, nearest_buckets
from .captions import CaptionData, read_captions
from .files import UNKNOWN, header_size
from .folder import FolderData, class_files, class_folders
from .shards import ShardData, Shards, captions_of, check_labels, image_sizes, read_shards
from .transforms import Transform

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_READERS = 16  # threads that read headers
_WORDNET = re.compile(r"n\d{8}")


def read_class_names(config: DataConfig) -> tuple[str, ...] | None:
    """Names of the classes, a label each; None where the data does not name any.

    Raises:
        ValueError: a folder that is not there, or has no class folders.
    """
    if config.kind == "folder":
        return tuple(class_folders(_path(config)))
    return {"mnist": MNIST_NAMES, "cifar10": CIFAR10_NAMES}.get(config.kind)


def are_imagenet(names: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1,000 class folders, whose sorted order is that of its classes."""
    return len(names) == 1000 and all(map(_WORDNET.fullmatch, names))


def open_data(config: DataConfig, model: Model, size: Size, labels: Mapping[str, int]) -> ImageData:
    """The data set.

    Args:
        size: height, width of the images, without buckets.
        labels: of each class name of the data; empty where it names none.

    Raises:
        ValueError: anything about the data that would end a run.
    """
    _check_kind(config, model)
    fit = _Fit(config, model, size)
    transform = Transform(model.params.in_channels, config.crop, config.flip, fit.buckets is not None)
    path = _path(config)
    if config.kind == "folder":
        files, sizes = fit.files(class_files(path, labels))
        return FolderData(files, sizes, transform)
    if config.kind == "captions":
        pairs, sizes = fit.files(read_captions(path, config.default_caption))
        return CaptionData(pairs, sizes, transform)
    if config.kind == "webdataset":
        shards = read_shards(config.path)
        if model.family.condition == "text":
            captions_of(shards, config.default_caption)
        else:
            check_labels(shards, model.params.num_classes)
        shards, sizes = fit.shards(shards)
        return ShardData(shards, sizes, transform, config.default_caption)
    images, numbers = read_mnist(path) if config.kind == "mnist" else read_cifar10(path)
    return ArrayData(images, relabel(numbers, labels), [size] * len(images), transform)


def _path(config: DataConfig) -> Path:
    if not config.path:
        raise ValueError("data.path is not set; name a folder of images.")
    return Path(config.path)


def _check_kind(config: DataConfig, model: Model) -> None:
    is_text, has_text = model.family.condition == "text", config.kind in ("captions", "webdataset")
    if (is_text and not has_text) or (not is_text and config.kind == "captions"):
        wanted = "captions or webdataset" if is_text else "folder, mnist, cifar10 or webdataset"
        raise ValueError(f"{model.family.title} needs data.kind {wanted}, not {config.kind}.")
    if config.buckets is not None and config.kind in ("mnist", "cifar10"):
        raise ValueError(f"data.buckets sorts images of several sizes, and {config.kind} has one: set data.size.")
    if model.params.in_channels not in (1, 3):
        raise ValueError(f"the model has {model.params.in_channels} channels; images have 1 (gray) or 3 (RGB).")


class _Fit:
    """What each image becomes: the one size, or its bucket. Only headers are read, and only for buckets."""

    def __init__(self, config: DataConfig, model: Model, size: Size) -> None:
        self.config, self.size, self.buckets = config, size, find_buckets(config, model.spec)

    def files(self, entries: list[tuple[str, _T]]) -> tuple[list[tuple[str, _T]], list[Size]]:
        """Files with their labels or captions, and what each becomes; without those that are too small."""
        if self.buckets is None:
            return entries, [self.size] * len(entries)
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(header_size, (file for file, _ in entries)))
        large = self._are_large([file for file, _ in entries], found)
        return list(compress(entries, large)), self._nearest(compress(found, large))

    def shards(self, shards: Shards) -> tuple[Shards, list[Size]]:
        """Shards, and what each image becomes; without those that are too small."""
        found = image_sizes(shards)
        if self.buckets is None:
            return shards, [self.size] * len(found)
        large = self._are_large([f"{path}/{sample.key}" for path, samples in shards for sample in samples], found)
        left = iter(large)
        kept = [(path, [sample for sample in samples if next(left)]) for path, samples in shards]
        return kept, self._nearest(compress(found, large))

    def _nearest(self, sizes: Iterable[Size]) -> list[Size]:
        assert self.buckets is not None and self.config.buckets is not None
        return nearest_buckets(sizes, self.buckets, by_aspect=self.config.buckets.area is not None)

    def _are_large(self, names: list[str], sizes: list[Size]) -> list[bool]:
        """Whether each image has the shortest side of a bucket; broken ones have, and are reported when they are read.

        Raises:
            ValueError: none has.
        """
        assert self.buckets is not None
        least = min(min(bucket) for bucket in self.buckets)
        large = [size == UNKNOWN or min(size) >= least for size in sizes]
        small = [name for name, is_large in zip(names, large, strict=True) if not is_large]
        if len(small) == len(names):
            raise ValueError(
                f"all {len(names)} images are smaller than the buckets, whose shortest side is {least}: lower "
                "data.buckets.min_side, or set data.size in place of data.buckets."
            )
        if small:
            log.warning("%d images with a side below %d are left out (%s).", len(small), least, shorten_list(small, 2))
        return large


def find_buckets(config: DataConfig, spec: ModelSpec) -> Sequence[Size] | None:
    """The sizes of the recipe's buckets: the model's trained ones of about an area, or by rule.

    Raises:
        ValueError: there are none, or the network cannot have one of these sizes.
    """
    if config.buckets is None:
        return None
    if config.buckets.area is None:
        multiple = spec.family.size_multiple(spec.params)
        sizes = bucket_sizes(config.buckets.min_side, config.buckets.max_side, multiple, config.buckets.max_aspect)
        for size in sizes:
            check_size(spec, *size)
        return sizes
    area = config.buckets.area
    found = [size for size in spec.family.trained_sizes(spec.params) if area / 1.5 < size[0] * size[1] < area * 1.5]
    if not found:
        raise ValueError(f"data.buckets.area is {area}, and {spec.family.title} has no trained sizes of that area.")
    return sorted(found, key=lambda size: (size[0] * size[1], size[1]))
