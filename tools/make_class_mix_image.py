"""Generates the figure on mixed classes of the help pages with the bundled model: `python tools/make_class_mix_image.py`.

Each row goes from one class to another, with the same noise.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
PAIRS = (("fox", "raccoon"), ("owl", "penguin"), ("doughnut", "pizza"))
STEPS = 7


def main() -> None:
    model = pc.load_checkpoint(ROOT / "models" / "pixeldit-emoji-96.safetensors")
    amounts = torch.linspace(0, 1, STEPS).unsqueeze(1)
    rows = []
    for pair in PAIRS:
        one, two = F.one_hot(pc.class_condition(model, pair), model.params.num_classes + 1).float()
        rows.append(pc.to_uint8(model, pc.sample(model, torch.lerp(one, two, amounts), seeds=[3] * STEPS)))
    sheet = pc.contact_sheet(torch.cat(rows), STEPS)
    sheet.quantize(256, dither=Image.Dither.NONE).save(
        ROOT / "web" / "docs" / "images" / "class-mix.png", optimize=True
    )


if __name__ == "__main__":
    main()
