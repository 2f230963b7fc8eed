"""The data of a recipe, checked against the model before a run starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ...model import Model
from ...sizes import Size
from ..config import DataConfig
from .arrays import CIFAR10_NAMES, MNIST_NAMES, ArrayData, read_cifar10, read_mnist
from .batch import ImageData
from .buckets import bucket_sizes, nearest_bucket
from .captions import CaptionData, read_captions
from .folder import FolderData, class_files, class_folders
from .shards import ShardData, find_shards, list_members
from .transforms import Transform

_WORDNET = re.compile(r"n\d{8}")


def read_class_names(config: DataConfig) -> tuple[str, ...] | None:
    """Names of the classes, a label each; None where the data does not name any.

    Raises:
        ValueError: a folder that is not there, or has no class folders.
    """
    if config.kind == "folder":
        return tuple(class_folders(Path(config.path)))
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
    is_text, has_text = model.family.condition == "text", config.kind in ("captions", "webdataset")
    if (is_text and not has_text) or (not is_text and config.kind == "captions"):
        wanted = "captions or webdataset" if is_text else "folder, mnist, cifar10 or webdataset"
        raise ValueError(f"{model.family.title} needs data.kind {wanted}, not {config.kind}.")
    transform = Transform(model.params.in_channels, config.crop, config.flip, config.buckets is not None)
    buckets = _buckets(config, model)
    path = Path(config.path)
    if config.kind == "folder":
        files = class_files(path, labels)
        return FolderData(files, _file_sizes([file for file, _ in files], size, buckets), transform)
    if config.kind == "captions":
        pairs = read_captions(path, config.default_caption)
        return CaptionData(pairs, _file_sizes([file for file, _ in pairs], size, buckets), transform)
    if config.kind == "webdataset":
        return _shards(config, model, size, buckets, transform)
    images, numbers = read_mnist(path) if config.kind == "mnist" else read_cifar10(path)
    return ArrayData(images, numbers, [size] * len(images), transform)


def _shards(
    config: DataConfig, model: Model, size: Size, buckets: list[Size] | None, transform: Transform
) -> ShardData:
    shards = [(path, list_members(path)) for path in find_shards(config.path)]
    members = [(path, member) for path, of_shard in shards for member in of_shard]
    is_text = model.family.condition == "text"
    for path, member in members:
        if (member.caption if is_text else member.label) is None:
            raise ValueError(f"{path} has no {'caption (.txt)' if is_text else 'class (.cls)'} for {member.key}.")
        if not is_text and not 0 <= (member.label or 0) < model.params.num_classes:
            raise ValueError(
                f"{member.key} of {path} has class {member.label}; the network has {model.params.num_classes}: set "
                "model.params.num_classes."
            )
    sizes = [size] * len(members)
    if buckets is not None:
        sizes = [nearest_bucket((member.height, member.width), buckets) for _, member in members]
    return ShardData(shards, sizes, transform)


def _buckets(config: DataConfig, model: Model) -> list[Size] | None:
    """The sizes of the recipe's buckets: the model's trained ones of about an area, or by rule."""
    if config.buckets is None:
        return None
    if config.buckets.area is None:
        multiple = model.family.size_multiple(model.params)
        return bucket_sizes(config.buckets.min_side, config.buckets.max_side, multiple, config.buckets.max_aspect)
    area = config.buckets.area
    found = [size for size in model.family.trained_sizes(model.params) if area / 1.5 < size[0] * size[1] < area * 1.5]
    if not found:
        raise ValueError(f"data.buckets.area is {area}, and {model.family.title} has no trained sizes of that area.")
    return sorted(found, key=lambda size: (size[0] * size[1], size[1]))


def _file_sizes(files: Sequence[Path], size: Size, buckets: list[Size] | None) -> list[Size]:
    """What each image becomes; only headers are read, and only for buckets."""
    return [size] * len(files) if buckets is None else [nearest_bucket(_header_size(file), buckets) for file in files]


def _header_size(path: Path) -> Size:
    """Height and width, as it is shown; (0, 0) of a file that is broken, which is reported when it is read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, ValueError, SyntaxError):
        return 0, 0
