"""An independent judge of the bundled models: a small CNN, trained on an image folder FOLDER/<class>/*.png.

python toy_data/digits.py data/classifier --count 14400 --seed 5000000
python toy_data/classifier.py data/classifier --out data/classifier.safetensors

The command `evaluate` takes it as a feature extractor: --extractor classifier --extractor-weights FILE.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixeldit_core.evaluation import accuracy, confusion_matrix, report, save_classifier, train_classifier

_HELD_OUT = 6  # one image in so many


def class_folders(folder: Path) -> list[str]:
    """Names of the folders with PNG images, sorted: the classes.

    Raises:
        ValueError: fewer than two.
    """
    names = sorted({path.parent.name for path in folder.glob("*/*.png")})
    if len(names) < 2:
        raise ValueError(
            f"{folder} has {len(names)} folders with images; expected at least two, <class>/*.png. Make some, for "
            "example with toy_data/digits.py."
        )
    return names


def read_images(folder: Path, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All images FOLDER/<class>/*.png: uint8 [N, C, H, W], and their labels [N]; gray if the first one is.

    Raises:
        ValueError: images of several sizes.
    """
    files = [(path, label) for label, name in enumerate(names) for path in sorted((folder / name).glob("*.png"))]
    with Image.open(files[0][0]) as first:
        mode, size = ("L" if first.mode == "L" else "RGB"), first.size
    pixels = []
    for path, _ in files:
        with Image.open(path) as image:
            if image.size != size:
                raise ValueError(f"{path} is {image.size}, and {files[0][0].name} {size}: all have to be of one size.")
            pixels.append(np.array(image.convert(mode)))
    images = torch.from_numpy(np.stack(pixels)).view(len(files), size[1], size[0], -1)
    return images.movedim(-1, 1).contiguous(), torch.tensor([label for _, label in files])


def main(argv: Sequence[str] | None = None) -> None:
    """Train on five of six images, test on the others, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="images that no model to judge was trained on")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="passes over the images (%(default)s)")
    options = parser.parse_args(argv)
    names = class_folders(options.folder)
    images, labels = read_images(options.folder, names)
    held_out = torch.arange(len(images)) % _HELD_OUT == 0
    classifier = train_classifier(images[~held_out], labels[~held_out], len(names), options.epochs)
    logits = classifier.predict(images[held_out])
    share = accuracy(logits, labels[held_out])
    about = {"held_out_accuracy": share, "held_out_images": len(logits), "images": len(images) - len(logits)}
    save_classifier(classifier, options.out, names, about)
    sys.stdout.write(report(confusion_matrix(labels[held_out], logits.argmax(1), len(names)), names) + "\n")
    sys.stdout.write(f"held-out images: {share:.2%} of {len(logits)} correct\nwrote {options.out}\n")


if __name__ == "__main__":
    main()
