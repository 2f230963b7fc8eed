"""A data set as a plain image folder: FOLDER/<class>/<any name>.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def read_image_folder(folder: Path, class_names: Sequence[str], channels: int = 3) -> tuple[Tensor, Tensor]:
    """All images, uint8 [N, H, W, C], and their labels [N]: class by class, sorted by file name.

    Args:
        class_names: names of the sub-folders; a label is an index into them.
        channels: 3 = RGB, 1 = gray; images are converted.

    Raises:
        ValueError: a missing or unexpected class, a class without images, images of different sizes.
    """
    _check_classes(folder, class_names)
    images, labels = [], []
    for label, name in enumerate(class_names):
        files = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in _SUFFIXES)
        if not files:
            raise ValueError(f"{folder / name} has no images ({', '.join(sorted(_SUFFIXES))}).")
        images += [_read(path, channels) for path in files]
        labels += [label] * len(files)
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        found = ", ".join(f"{width} x {height}" for height, width in sorted(sizes)[:4])
        raise ValueError(f"{folder} has images of several sizes ({found}, ...). Scale or crop them to one size.")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def _check_classes(folder: Path, class_names: Sequence[str]) -> None:
    if not folder.is_dir():
        raise ValueError(f"image folder {folder} is not there. Make it first, for example with toy_data/drawings.py.")
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    for names, problem in ((set(class_names) - found, "lacks"), (found - set(class_names), "has unexpected")):
        if names:
            raise ValueError(f"{folder} {problem} class folders: {', '.join(sorted(names)[:8])}.")


def _read(path: Path, channels: int) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)
