"""Draws the icon and the banner from states of the bundled model on its way from noise: `python tools/make_logo.py`.

Nothing in them is drawn by hand but the letters (Noto Sans CJK, which must be installed).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from graph import EMOJI
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / EMOJI
ICON = "fox"
COLUMNS, ROWS, SCALE = 9, 4, 2
BANNER = (1680, 720)
# by rows; the columns at the left are still noise
THINGS = """
    lemon, castle, tulip, whale, pizza, butterfly, rocket, doughnut, panda,
    crab, cactus, koala, teapot, balloon, fox, strawberry, octopus, cupcake,
    peach, guitar, tomato, snail, raccoon, sunflower, parrot, robot, pineapple,
    tree, bee, volcano, mango, frog, ice cream cone, owl, rainbow, penguin
"""


def trajectories(names: Sequence[str], seeds: Sequence[int], steps: int = 40) -> Tensor:
    """The states of images from noise (first) to image (last): uint8 [steps + 1, B, H, W, 3]."""
    model = pc.load_checkpoint(MODEL)
    noise = pc.unit_noise(model, seeds, *model.spec.default_size)
    states = [noise]
    pc.sample(
        model,
        pc.class_condition(model, names),
        noise=noise,
        steps=steps,
        on_step=lambda i, t, x, v: states.append(x.clone()),
    )
    return torch.stack([pc.to_uint8(model, state) for state in states])


def icon() -> Image.Image:
    """One image whose patches are at different times: noise at the upper left, finished at the lower right."""
    states = trajectories([ICON], [0])[:, 0]
    steps, side = len(states) - 1, states.shape[1]
    image, patch = states[-1].clone(), 12
    for y in range(0, side, patch):
        for x in range(0, side, patch):
            place = (x + y) / (side - patch)  # 0 to 2 along the diagonal
            time = round(steps * min(1.0, max(0.0, place / 0.9)) ** 0.5)
            image[y : y + patch, x : x + patch] = states[time, y : y + patch, x : x + patch]
    large = Image.fromarray(image.numpy()).resize((384, 384), Image.Resampling.NEAREST)
    return rounded(large, 72)


def rounded(image: Image.Image, radius: int) -> Image.Image:
    """The image with round corners, transparent outside of them."""
    mask = Image.new("L", (image.width * 4, image.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle([0, 0, mask.width - 1, mask.height - 1], radius * 4, fill=255)
    image = image.convert("RGBA")
    image.putalpha(mask.resize(image.size, Image.Resampling.LANCZOS))
    return image


def banner() -> Image.Image:
    """Things on their way from noise, at the left, to images, at the right."""
    names = [name.strip() for name in THINGS.split(",")]
    states = trajectories(names, range(len(names)))
    steps, side = len(states) - 1, states.shape[2] * SCALE
    image = Image.new("RGB", (COLUMNS * side, ROWS * side))
    for number in range(len(names)):
        row, column = divmod(number, COLUMNS)
        time = round(steps * min(1.0, column / 5))
        tile = Image.fromarray(states[time, number].numpy()).resize((side, side), Image.Resampling.NEAREST)
        image.paste(tile, (column * side, row * side))
    left, top = (image.width - BANNER[0]) // 2, (image.height - BANNER[1]) // 2
    image = image.crop((left, top, left + BANNER[0], top + BANNER[1]))
    ramp = (np.linspace(1, 0, image.width) * 1.9 - 0.75).clip(0, 0.8) * 255
    shade = Image.fromarray(np.broadcast_to(ramp.astype(np.uint8), (image.height, image.width)).copy())
    image.paste((18, 18, 46), mask=shade)
    pen = ImageDraw.Draw(image)
    pen.text((100, 216), "PixelDiT", "#ffffff", ImageFont.truetype("NotoSansCJK-Bold.ttc", 168))
    subtitle = ImageFont.truetype("NotoSansCJK-Regular.ttc", 40)
    pen.text((108, 464), "for ComfyUI: straight to pixels, no VAE", "#ffe3c2", subtitle)
    return image


def main() -> None:
    """Write both."""
    icon().save(ROOT / "docs" / "images" / "icon.png", optimize=True)
    banner().quantize(256).save(ROOT / "docs" / "images" / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
