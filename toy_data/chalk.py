"""A toy data set of a new look: images of the bundled model in white chalk on a green board, OUT/<class>/<number>.png.

python toy_data/chalk.py data/chalk

Twenty images teach it to that model, as a LoRA (recipes/lora.yaml). Class and number decide an image.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import pixeldit_core as pc

MODEL = Path(__file__).parents[1] / "models" / "pixeldit-emoji-96.safetensors"
BOARD, CHALK = (24, 58, 46), (242, 244, 232)
DETAIL = 4  # the image is enlarged so much while the chalk is put on it
LINE = 7  # width of an outline, in pixels of the enlarged image
STRIDE = 29  # from one class to the next: over all kinds of things


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def chalk(image: Image.Image, grain: np.random.Generator) -> Image.Image:
    """An image of any size as chalk on a board: what differs from its left upper corner, with white outlines."""
    large = image.resize((DETAIL * image.width, DETAIL * image.height), Image.Resampling.BICUBIC)
    soft = large.filter(ImageFilter.GaussianBlur(DETAIL))
    low, high = (_values(soft.filter(kind(LINE))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    outline = (((high - low).max(axis=2) - 24) / 48).clip(0, 1)
    values = _values(soft)
    area = 0.35 * ((np.abs(values - values[0, 0]).max(axis=2) - 24) / 200).clip(0, 1)
    amount = (np.maximum(area, outline) * grain.uniform(0.75, 1.0, area.shape))[..., None]
    drawn = Image.fromarray((np.array(BOARD) * (1 - amount) + np.array(CHALK) * amount).round().astype(np.uint8))
    return drawn.resize(image.size, Image.Resampling.LANCZOS)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--count", type=int, default=20, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=500, help="number of the first image (%(default)s)")
    options = parser.parse_args(argv)
    model = pc.load_checkpoint(MODEL)
    names = model.class_names
    assert names, "the bundled model has class names"
    labels = [STRIDE * index % model.params.num_classes for index in range(options.count)]
    seeds = [options.seed + index for index in range(options.count)]
    images = pc.to_uint8(model, pc.sample(model, pc.class_condition(model, labels), seeds=seeds))
    for label, seed, image in zip(labels, seeds, images, strict=True):
        path = options.out / names[label][0] / f"{seed:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        chalk(Image.fromarray(image.numpy()), np.random.default_rng((label, seed))).save(path)


if __name__ == "__main__":
    main()
