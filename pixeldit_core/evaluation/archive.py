"""All images as one .npz file, as the ADM evaluation suite takes it: arr_0, uint8 [N, H, W, C]."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..atomic import atomic_path, explain_write_error
from .image_folder import ImageFolder

NAME = "samples.npz"
_THREADS, _AHEAD = 8, 256


def write_archive(folder: ImageFolder, count: int, path: Path) -> None:
    """Write the first `count` images of a folder, in their order, without holding more than some of them in memory.

    Raises:
        ValueError: the disk has no room for it, or it cannot be written; an image is broken.
    """
    size = count * math.prod(folder.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise ValueError(
            f"{path} needs {size / 1e6:,.1f} MB, and its disk has {free / 1e6:,.1f} MB. The images are in "
            f"{folder.path}: free space, then run the same command again."
        )
    try:
        _write(folder, count, path)
    except OSError as error:
        reason, way_out = explain_write_error(error, path)
        raise ValueError(
            f"{path} could not be written: {reason}. The images are in {folder.path}, each of them whole. {way_out} "
            "Then run the same command again."
        ) from error


def _write(folder: ImageFolder, count: int, path: Path) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *folder.shape)}
    with (
        atomic_path(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for pixels in _read_in_order(folder, count):
            file.write(pixels.tobytes())


def _read_in_order(folder: ImageFolder, count: int) -> Iterator[np.ndarray]:
    with ThreadPoolExecutor(_THREADS, "read") as pool:
        for first in range(0, count, _AHEAD):
            yield from pool.map(folder.read, range(first, min(first + _AHEAD, count)))
