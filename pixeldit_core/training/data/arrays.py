"""Small sets of images in the files that they were published in: MNIST (IDX) and CIFAR-10 (binary version)."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...sizes import Size
from .batch import ImageData
from .folder import check_folder
from .transforms import Transform

MNIST_NAMES = tuple("0123456789")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files
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
    return pixels, numbers


def read_cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images [N, 32, 32, 3] and labels [N] of CIFAR-10's binary version.

    Raises:
        ValueError: missing or damaged files, or the version for Python, which is pickled.
    """
    check_folder(folder)
    folder = next((f for f in (folder, folder / "cifar-10-batches-bin") if (f / "data_batch_1.bin").is_file()), folder)
    files = sorted(folder.glob("data_batch_*.bin"))
    if not files:
        pickled = "its version for Python, which is pickled" if list(folder.rglob("data_batch_1")) else "no such files"
        raise ValueError(f"{folder} has {pickled}: get CIFAR-10's binary version (cifar-10-binary.tar.gz).")
    raw = [np.frombuffer(file.read_bytes(), np.uint8) for file in files]
    for file, values in zip(files, raw, strict=True):
        if not len(values) or len(values) % _RECORD:
            raise ValueError(f"{file} has {len(values)} bytes, no multiple of {_RECORD}: it is damaged, get it again.")
    records = np.concatenate(raw).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{folder} has labels above 9, so it is not CIFAR-10.")
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _find(folder: Path, start: str) -> Path:
    """`train-images-idx3-ubyte`, with a dot or a dash, gzipped or not."""
    matches = sorted(path for path in folder.rglob(f"{start}*") if path.is_file())
    if not matches:
        raise ValueError(f"{folder} has no file {start}-idx...-ubyte, as MNIST is published.")
    return matches[0]


def _read_idx(path: Path, magic: int) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}): get it again.") from error
    if len(content) < 8 or int.from_bytes(content[:4], "big") != magic:
        raise ValueError(f"{path} is no IDX file of {'images' if magic == _IMAGES else 'labels'}.")
    dimensions = 3 if magic == _IMAGES else 1
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} has {len(values)} of {np.prod(shape, dtype=np.int64)} bytes: get it again.")
    return values.reshape(shape)
