"""Generates the figure on editing of the help pages with the bundled model: `python tools/make_editing_image.py`.

An image, the mask, and four images whose upper half was regenerated; below it every pixel is unchanged.
"""

from __future__ import annotations

from pathlib import Path

import torch

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
SIZE, SOFT = 96, 6  # rows of the soft edge


def upper_half() -> torch.Tensor:
    """The mask of the template PixelDiT Inpaint: white above, with a soft lower edge."""
    rows = ((SIZE // 2 - torch.arange(SIZE)) / SOFT).clamp(0, 1)
    return rows.view(1, 1, SIZE, 1).expand(1, 1, SIZE, SIZE)


def main() -> None:
    model = pc.load_checkpoint(ROOT / "models" / "pixeldit-emoji-96.safetensors")
    house, mask = pc.class_condition(model, "house"), upper_half()
    first = pc.to_uint8(model, pc.sample(model, house, seeds=1))
    options = {"image": pc.from_image(model, first), "mask": mask, "steps": 30, "cfg": 4.0}
    edited = pc.to_uint8(model, pc.sample(model, house, seeds=[11, 12, 14, 16], **options))
    kept = (mask[0, 0] == 0)[None, :, :, None]
    assert torch.equal(edited.where(kept, 0), first.where(kept, 0).expand_as(edited))
    shown = (255 * mask.movedim(1, -1)).byte().expand(1, SIZE, SIZE, 3)
    sheet = pc.contact_sheet(torch.cat([first, shown, edited]), 6)
    sheet.save(ROOT / "web" / "docs" / "images" / "editing.png", optimize=True)


if __name__ == "__main__":
    main()
