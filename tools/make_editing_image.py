"""Generates the figure on editing of the help pages with the bundled model: `python tools/make_editing_image.py`.

An image, the mask, and images whose upper half was regenerated as something else; below it every pixel is unchanged.
"""

from __future__ import annotations

from pathlib import Path

import torch
from graph import CUPCAKE, EMOJI, ON_A_CUPCAKE

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
SIZE, SOFT = 96, 6  # rows of the soft edge
OTHERS = ON_A_CUPCAKE.split(", ")


def upper_half() -> torch.Tensor:
    """The mask of the template PixelDiT Inpaint: white above, with a soft lower edge."""
    rows = ((SIZE // 2 - torch.arange(SIZE)) / SOFT).clamp(0, 1)
    return rows.view(1, 1, SIZE, 1).expand(1, 1, SIZE, SIZE)


def main() -> None:
    model = pc.load_checkpoint(ROOT / "models" / EMOJI)
    mask = upper_half()
    first = pc.to_uint8(model, pc.sample(model, pc.class_condition(model, CUPCAKE), seeds=1))
    others, options = pc.class_condition(model, OTHERS), {"image": pc.from_image(model, first), "mask": mask}
    edited = pc.to_uint8(model, pc.sample(model, others, seeds=[1] * len(OTHERS), **options))
    kept = (mask[0, 0] == 0)[None, :, :, None]
    assert torch.equal(edited.where(kept, 0), first.where(kept, 0).expand_as(edited))
    shown = (255 * mask.movedim(1, -1)).byte().expand(1, SIZE, SIZE, 3)
    sheet = pc.contact_sheet(torch.cat([first, shown, edited]), 2 + len(OTHERS))
    sheet.save(ROOT / "web" / "docs" / "images" / "editing.png", optimize=True)


if __name__ == "__main__":
    main()
