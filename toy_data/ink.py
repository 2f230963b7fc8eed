"""A toy data set of a new look: images of the bundled model in blue ink on paper, OUT/<class>/<number>.png.

python toy_data/ink.py data/ink

Twenty images teach it to that model, as a LoRA (recipes/lora.yaml). Class and number decide an image.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import pixeldit_core as pc

MODEL = Path(__file__).parents[1] / "models" / "pixeldit-emoji-96.safetensors"
PAPER, INK = (247, 241, 228), (26, 44, 120)
STRIDE = 29  # from one class to the next: over all kinds of things


def ink(image: Image.Image, grain: np.random.Generator) -> Image.Image:
    """An image of any size as ink on paper: more ink where it has more color than its left upper corner."""
    values = np.asarray(image, dtype=np.float32)
    color = ((values[0, 0] - values) / values[0, 0].clip(1)).max(axis=2).clip(0, 1)
    amount = (color * grain.uniform(0.8, 1.0, color.shape))[..., None]
    return Image.fromarray((np.array(PAPER) * (1 - amount) + np.array(INK) * amount).round().astype(np.uint8))


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
        ink(Image.fromarray(image.numpy()), np.random.default_rng((label, seed))).save(path)


if __name__ == "__main__":
    main()
