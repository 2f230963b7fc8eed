"""Small sets of images in the files that they were published in: MNIST (IDX) and CIFAR-10 (binary version)."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...sizes import Size
from .batch import ImageData
from .files import check_folder
from .transforms import Transform

MNIST_NAMES = tuple("0123456789")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files
_IDX_NAME = re.compile(r"train-(images.idx3|labels.idx1)-ubyte(\.gz)?")
_INNER = "cifar-10-batches-bin"  # as the archive unpacks
_RECORD = 1 + 3 * 32 * 32  # label and planes of a CIFAR-10 image


class ArrayData(ImageData):
    """Images in memory: uint8 [N, H, W] or [N, H, W, 3], and labels [N]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, sizes: Sequence[Size], transform: Transform) -> None:
        super().__init__(transform)
        self._images, self._labels, self._sizes = images, labels, sizes

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def target(self, index: int) -> tuple[int | None, str | None]:
        return int(self._labels[index]), None

    def name(self, index: int) -> str:
        return f"image {index}"

    def sizes(self) -> Sequence[Size]:
        return self._sizes


def read_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images [N, H, W] and labels [N] of IDX files, gzipped or not; Fashion-MNIST's are alike.

    Raises:
        ValueError: missing or damaged files.
    """
    check_folder(folder)
    images, labels = (_find(folder, f"train-{kind}") for kind in ("images", "labels"))
    pixels, numbers = _read_idx(images, _IMAGES), _read_idx(labels, _LABELS)
    if len(pixels) != len(numbers):
        raise ValueError(f"{images} has {len(pixels)} images and {labels.name} {len(numbers)} labels: get both again.")
    _check_labels(labels, numbers)
    return pixels, numbers


def read_cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images [N, 32, 32, 3] and labels [N] of CIFAR-10's binary version.

    Raises:
        ValueError: missing or damaged files, or the version for Python, which is pickled.
    """
    check_folder(folder)
    folder = folder / _INNER if (folder / _INNER).is_dir() else folder
    files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pickled = any(folder.rglob("data_batch_1"))
        found = "has the version for Python, whose pickles are not read" if pickled else f"lacks {', '.join(missing)}"
        raise ValueError(f"{folder} {found}: get CIFAR-10's binary version (cifar-10-binary.tar.gz) and unpack it.")
    raw = [np.frombuffer(file.read_bytes(), np.uint8) for file in files]
    for file, values in zip(files, raw, strict=True):
        if not len(values) or len(values) % _RECORD:
            raise ValueError(f"{file} has {len(values)} bytes, no multiple of {_RECORD}: it is damaged, get it again.")
    records = np.concatenate(raw).reshape(-1, _RECORD)
    _check_labels(folder, records[:, 0])
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def relabel(numbers: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
    """Labels [N] of the files -> of the network.

    Args:
        labels: of each class name, in the order of the files' labels; empty = the same.

    Raises:
        ValueError: another number of class names.
    """
    if labels and len(labels) != len(MNIST_NAMES):
        raise ValueError(f"the data has 10 classes, and model.class_names has {len(labels)} names: give 10, or none.")
    return np.array([*labels.values()] if labels else range(10))[numbers]


def _check_labels(path: Path, labels: np.ndarray) -> None:
    if not len(labels) or labels.max() > 9:
        found = f"has label {labels.max()}" if len(labels) else "is empty"
        raise ValueError(f"{path} {found}; expected are ten classes, 0 to 9.")


def _find(folder: Path, start: str) -> Path:
    """`train-images-idx3-ubyte`, with a dot or a dash, gzipped or not, in the folder or below it."""
    found = [path for path in sorted(folder.rglob(f"{start}[.-]idx*")) if _IDX_NAME.fullmatch(path.name)]
    if not found:
        raise ValueError(f"{folder} has no file {start}-idx...-ubyte or ...-ubyte.gz, as MNIST is published.")
    folders = sorted({str(path.parent) for path in found})
    if len(folders) > 1:
        raise ValueError(f"{folder} has {start} in several folders: set data.path to one, such as {folders[0]}.")
    return found[0]


def _read_idx(path: Path, magic: int) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): get it again.") from error
    if len(content) < (16 if magic == _IMAGES else 8) or int.from_bytes(content[:4], "big") != magic:
        raise ValueError(f"{path} is no IDX file of {'images' if magic == _IMAGES else 'labels'}.")
    dimensions = 3 if magic == _IMAGES else 1
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} has {len(values)} of {np.prod(shape, dtype=np.int64)} bytes: get it again.")
    return values.reshape(shape)
