"""A toy data set: twelve classes of small flat-design drawings as an image folder, OUT/<class>/<number>.png.

python toy_data/drawings.py data/drawings --count 36000 --seed 20260

Class and seed, which is the file's number, decide a drawing (together with the version of Pillow that draws it).
"""

import argparse
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from brush import PALETTES, Palette, Pen
from PIL import Image
from scenes import (
    balloon,
    butterfly,
    cactus,
    fish,
    house,
    moon,
    mountain,
    mushroom,
    rocket,
    sailboat,
    sunflower,
    umbrella,
)

DRAWINGS: dict[str, Callable[[int, Palette, Random], Pen]] = {
    "hot-air balloon": balloon,
    "sailboat": sailboat,
    "mountain": mountain,
    "cactus": cactus,
    "mushroom": mushroom,
    "fish": fish,
    "butterfly": butterfly,
    "house": house,
    "sunflower": sunflower,
    "rocket": rocket,
    "moon": moon,
    "umbrella": umbrella,
}
CLASS_NAMES = tuple(DRAWINGS)


def draw(label: int, seed: int, size: int = 64) -> Image.Image:
    """One RGB drawing of class `label` (0 to 11): the same for the same arguments.

    Raises:
        ValueError: an unknown class.
    """
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f"label is {label}; there are {len(CLASS_NAMES)} classes, 0 to {len(CLASS_NAMES) - 1}.")
    rng = Random(f"{label}/{seed}")
    pen = DRAWINGS[CLASS_NAMES[label]](size, rng.choice(PALETTES), rng)
    return pen.image.resize((size, size), Image.Resampling.LANCZOS)


def save_drawing(index: int, out: Path, seed: int, size: int = 64) -> Path:
    """Draw and write number `index` of a data set: classes take turns, and the seed rises by 1 after each round."""
    label, seed = index % len(CLASS_NAMES), seed + index // len(CLASS_NAMES)
    path = out / CLASS_NAMES[label] / f"{seed:07}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(label, seed, size).save(path, compress_level=1)
    return path


def save_drawings(out: Path, count: int, seed: int = 0, size: int = 64, workers: int = 0) -> None:
    """Write `count` drawings below `out`, with this number of processes; 0 = in this one."""
    save = partial(save_drawing, out=out, seed=seed, size=size)
    if not workers:
        for index in range(count):
            save(index)
        return
    with get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(save, range(count), chunksize=128):
            pass


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--count", type=int, default=36_000, help="number of drawings (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20260, help="number of the first of each class (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (%(default)s)")
    options = parser.parse_args(argv)
    save_drawings(options.out, options.count, options.seed, options.size, options.workers)


if __name__ == "__main__":
    main()
