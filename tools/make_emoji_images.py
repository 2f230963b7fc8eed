"""Generates the sheets of the bundled model's samples: `python tools/make_emoji_images.py [DATA]`.

Seeds are row times 100 plus column, and the number of the class in the sheet of all classes: nothing is chosen. With
DATA, the folder it was trained on, there is a sheet of training images too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from graph import EMOJI, SHOWCASE
from PIL import Image
from torch import Tensor

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
THINGS = [name.strip() for name in SHOWCASE.split(",")]
ROWS, ALL_COLUMNS, BATCH = 3, 21, 21


def samples(model: pc.Model, classes: Sequence[str | int], seeds: Sequence[int]) -> Tensor:
    """uint8 [B, H, W, 3] with the settings in the file."""
    parts = []
    for start in range(0, len(classes), BATCH):
        condition = pc.class_condition(model, classes[start : start + BATCH])
        parts.append(pc.to_uint8(model, pc.sample(model, condition, seeds=seeds[start : start + BATCH])))
    return torch.cat(parts)


def training_images(data: Path) -> Image.Image:
    """A row of each style and one more, which shows how the same drawing varies."""
    sheet = []
    for number in (0, 1, 3):
        for name in THINGS:
            with Image.open(data / name / f"{number:05}.png") as image:
                sheet.append(torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.uint8).view(96, 96, 3))
    return pc.contact_sheet(torch.stack(sheet), len(THINGS))


def main() -> None:
    model = pc.load_checkpoint(ROOT / "models" / EMOJI)
    names = [name for _ in range(ROWS) for name in THINGS]
    seeds = [100 * row + column for row in range(ROWS) for column in range(len(THINGS))]
    sheet = pc.contact_sheet(samples(model, names, seeds), len(THINGS))
    sheet.save(IMAGES / "emoji.png", optimize=True)
    everything = range(model.params.num_classes)
    sheet = pc.contact_sheet(samples(model, everything, everything), ALL_COLUMNS, gap=2)
    sheet.save(IMAGES / "emoji-all.webp", quality=85, method=6)
    if len(sys.argv) > 1:
        training_images(Path(sys.argv[1])).save(IMAGES / "emoji-data.png", optimize=True)


if __name__ == "__main__":
    main()
