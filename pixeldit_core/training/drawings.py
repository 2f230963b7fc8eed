"""Twelve kinds of small flat-design pictures, drawn on demand: the data set of the model in the box.

A picture is decided by its class and its seed (and the Pillow that draws it). Nothing comes from anywhere else.
"""

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from . import scenes
from .brush import PALETTES, Palette, Pen

DRAWINGS: dict[str, Callable[[int, Palette, Random], Pen]] = {
    "hot-air balloon": scenes.balloon,
    "sailboat": scenes.sailboat,
    "mountain": scenes.mountain,
    "cactus": scenes.cactus,
    "mushroom": scenes.mushroom,
    "fish": scenes.fish,
    "butterfly": scenes.butterfly,
    "house": scenes.house,
    "sunflower": scenes.sunflower,
    "rocket": scenes.rocket,
    "moon": scenes.moon,
    "umbrella": scenes.umbrella,
}
CLASS_NAMES = tuple(DRAWINGS)


def draw(label: int, seed: int, size: int = 64) -> np.ndarray:
    """One picture of class `label` (0..11): [size,size,3] uint8, the same for the same arguments."""
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f"label {label}: there are {len(CLASS_NAMES)} drawings, 0..{len(CLASS_NAMES) - 1}")
    rng = Random(f"{label}/{seed}")
    page = DRAWINGS[CLASS_NAMES[label]](size, rng.choice(PALETTES), rng)
    return np.asarray(page.image.resize((size, size), Image.Resampling.LANCZOS))


def _draw_one(index: int, seed: int, size: int) -> np.ndarray:
    return draw(index % len(CLASS_NAMES), seed + index // len(CLASS_NAMES), size)


def draw_many(count: int, seed: int = 0, size: int = 64, workers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [count,size,size,3] uint8 and labels [count] int64; picture i is of class i modulo 12.

    `workers` processes draw; 0: this one does.
    """
    labels = np.arange(count) % len(CLASS_NAMES)
    one = partial(_draw_one, seed=seed, size=size)
    pictures = np.empty((count, size, size, 3), np.uint8)
    if workers:
        with get_context("spawn").Pool(workers) as pool:
            for i, picture in enumerate(pool.imap(one, range(count), chunksize=128)):
                pictures[i] = picture
    else:
        for i in range(count):
            pictures[i] = one(i)
    return pictures, labels


def cached_drawings(path: Path, count: int, seed: int, size: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """`draw_many`, kept in the .npy file `path`; a file that holds something else is drawn again."""
    if path.exists():
        pictures = np.load(path, mmap_mode="r")
        fresh, _ = draw_many(min(count, len(CLASS_NAMES)), seed, size)  # notices another seed, and edited drawings
        if pictures.shape == (count, size, size, 3) and np.array_equal(pictures[: len(fresh)], fresh):
            return pictures, np.arange(count) % len(CLASS_NAMES)
    pictures, labels = draw_many(count, seed, size, workers)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pictures)
    return pictures, labels
