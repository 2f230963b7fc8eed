"""A toy data set of a new look: the drawings in white chalk on a green board, OUT/<class>/<number>.png.

python toy_data/chalk.py data/chalk

Twenty images teach it to the bundled model, as a LoRA. Class and seed decide the scene, as in drawings.py.
"""

import argparse
from pathlib import Path

import numpy as np
from drawings import CLASS_NAMES, draw
from PIL import Image, ImageFilter

BOARD, CHALK = (24, 58, 46), (242, 244, 232)
DETAIL = 4  # the drawing is this much larger than the image while the chalk is put on it
LINE = 7  # width of an outline, in pixels of the larger drawing


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def chalk(drawing: Image.Image, grain: np.random.Generator) -> Image.Image:
    """A drawing of any size as chalk on a board: areas as bright as their luminance, with white outlines."""
    soft = drawing.filter(ImageFilter.GaussianBlur(1))
    low, high = (_values(soft.filter(kind(LINE))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    outline = (((high - low).max(axis=2) - 32) / 64).clip(0, 1)
    area = 0.5 * (_values(soft.convert("L")) / 255) ** 2
    rough = grain.uniform(0.75, 1.0, area.shape)
    amount = (np.maximum(area, 0.9 * outline) * rough)[..., None]
    return Image.fromarray((np.array(BOARD) * (1 - amount) + np.array(CHALK) * amount).round().astype(np.uint8))


def draw_chalk(label: int, seed: int, size: int = 64) -> Image.Image:
    """One RGB image of class `label` (0 to 11): the same for the same arguments.

    Raises:
        ValueError: an unknown class.
    """
    large = chalk(draw(label, seed, DETAIL * size), np.random.default_rng((label, seed)))
    return large.resize((size, size), Image.Resampling.LANCZOS)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--count", type=int, default=20, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=500, help="number of the first of each class (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (%(default)s)")
    options = parser.parse_args(argv)
    for index in range(options.count):
        label, seed = index % len(CLASS_NAMES), options.seed + index // len(CLASS_NAMES)
        path = options.out / CLASS_NAMES[label] / f"{seed:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_chalk(label, seed, options.size).save(path)


if __name__ == "__main__":
    main()
