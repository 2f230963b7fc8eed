"""What of the samples is memory: their nearest training images, FOLDER/<class>/<number>.png.

python -m pixeldit_core evaluate MODEL --count 1176 --out data/scored
python toy_data/nearest.py data/scored/images data/emoji --new data/held-back --sheet nearest.png

Distances are the root mean square over all pixels, 0 to 1. `--new` gives those of images that no model has seen. The
sheet has three columns for each chosen class: a sample, its nearest training image, another sample.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pixeldit_core as pc

_CHUNK = 512  # images compared at a time


@dataclass(frozen=True)
class Images:
    """Images of one size, uint8 [N, H * W * 3] in memory, with the class and the file of each."""

    pixels: Tensor
    classes: Tensor
    files: tuple[Path, ...]

    def floats(self, chosen: slice | Tensor) -> Tensor:
        """Some of the images, in [0, 1]."""
        return self.pixels[chosen].float() / 255


def read_folders(folder: Path, names: Sequence[str]) -> Images:
    """The images of FOLDER/<class>/*.png; a class is its place in `names`."""
    files = [path for name in names for path in sorted((folder / name).glob("*.png"))]
    return _read(files, [names.index(path.parent.name) for path in files])


def read_samples(folder: Path) -> Images:
    """The images of `evaluate`, whose text chunks say their classes.

    Raises:
        ValueError: a file without that chunk, or no file.
    """
    files, classes = sorted(folder.glob("**/*.png")), []
    for path in files:
        with Image.open(path) as image:
            note = image.info.get("pixeldit")
        if note is None:
            raise ValueError(f"{path} is no image of `python -m pixeldit_core evaluate`; give its folder images.")
        classes.append(json.loads(note)["entry"])
    return _read(files, classes)


def _read(files: Sequence[Path], classes: Sequence[int]) -> Images:
    if not files:
        raise ValueError("there are no .png files in a folder; check what was given.")
    pixels = []
    for path in files:
        with Image.open(path) as image:
            pixels.append(np.asarray(image.convert("RGB")).reshape(-1))
        if len(pixels[-1]) != len(pixels[0]):
            raise ValueError(f"{path} and {files[0]} differ in size; all images have to be of one size.")
    return Images(torch.from_numpy(np.stack(pixels)), torch.tensor(classes), tuple(files))


def find_nearest(images: Images, training: Images) -> tuple[Tensor, Tensor]:
    """The distance of each image to its nearest training image, [N] in 0 to 1, and which one that is."""
    best = torch.full((len(images.pixels),), torch.inf)
    index = torch.zeros(len(images.pixels), dtype=torch.long)
    count = images.pixels.shape[1]
    for start in range(0, len(training.pixels), _CHUNK):
        others = training.floats(slice(start, start + _CHUNK))
        squares = others.square().mean(1)
        for first in range(0, len(best), _CHUNK):
            rows = slice(first, first + _CHUNK)
            these = images.floats(rows)
            distances = these.square().mean(1, keepdim=True) + squares - 2 * these @ others.T / count
            value, place = distances.min(1)
            closer = value < best[rows]
            best[rows] = torch.where(closer, value, best[rows])
            index[rows] = torch.where(closer, place + start, index[rows])
    exact = images.floats(slice(None)) - training.floats(index)  # a difference of large sums is not
    return exact.square().mean(1).sqrt(), index


def describe(name: str, images: Images, training: Images, styles: Sequence[str]) -> tuple[str, Tensor]:
    """A line about images and their nearest training images, and which these are."""
    distances, index = find_nearest(images, training)
    same = (training.classes[index] == images.classes).float().mean()
    style = torch.tensor([int(training.files[i].stem) % len(styles) for i in index.tolist()])
    shares = ", ".join(f"{word} {(style == number).float().mean():.0%}" for number, word in enumerate(styles))
    return (
        f"{name}: {len(images.pixels)} images, nearest training image {distances.mean():.3f} (least "
        f"{distances.min():.3f}, most {distances.max():.3f}), of the same class {same:.1%}; {shares}\n"
    ), index


def sheet(samples: Images, training: Images, index: Tensor, classes: Sequence[int], columns: int) -> Image.Image:
    """Three images for each class: its first sample, the nearest training image, its second sample."""
    rows, side = [], round((samples.pixels.shape[1] / 3) ** 0.5)
    for label in classes:
        first, second = (samples.classes == label).nonzero().flatten()[:2].tolist()
        rows += [samples.pixels[first], training.pixels[index[first]], samples.pixels[second]]
    return pc.contact_sheet(torch.stack(rows).view(len(rows), side, side, 3), 3 * columns)


def _places(chosen: Sequence[str], names: Sequence[str]) -> list[int]:
    for name in chosen:
        if name not in names:
            raise ValueError(f"there is no class {name}; folders are named {', '.join(names[:8])} ...")
    return [names.index(name) for name in chosen]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, metavar="SAMPLES", help="the folder images of `evaluate`")
    parser.add_argument("training", type=Path, metavar="TRAINING", help="the folder the model was trained on")
    parser.add_argument("--new", type=Path, metavar="FOLDER", help="images made like TRAINING that no model has seen")
    parser.add_argument("--styles", nargs="+", default=["3d", "flat"], help="in the order of TRAINING's numbers")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write samples, nearest and other samples here")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of the sheet (default: the first twelve)")
    parser.add_argument("--columns", type=int, default=4, help="classes side by side in the sheet (%(default)s)")
    options = parser.parse_args(argv)
    names = sorted(path.name for path in options.training.iterdir() if path.is_dir())
    try:
        samples, training = read_samples(options.samples), read_folders(options.training, names)
        line, index = describe("samples", samples, training, options.styles)
        sys.stdout.write(line)
        if options.new:
            sys.stdout.write(describe("new", read_folders(options.new, names), training, options.styles)[0])
        if options.sheet:
            chosen = _places(options.classes or names[:12], names)
            sheet(samples, training, index, chosen, options.columns).save(options.sheet, optimize=True)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
