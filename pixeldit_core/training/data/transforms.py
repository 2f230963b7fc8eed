"""From an image of any kind and size to the pixels that a network sees."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...sizes import Size
from .order import Draw

_BOX, _BICUBIC, _LANCZOS = Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Transform:
    """Upright, in the network's channels, resized to cover the draw's size, cropped to it, perhaps mirrored.

    What is random is decided by the draw's seed.
    """

    channels: int
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    buckets: bool = False  # resize as PixelHDM does (spec: pixelhdm, 12), not as for ImageNet

    def __call__(self, image: Image.Image, draw: Draw) -> Tensor:
        """uint8 [C, H, W]."""
        image = upright(image, self.channels)
        rng = random.Random(draw.seed)
        covered = cover_lanczos(image, draw.size) if self.buckets else cover(image, draw.size)
        image = _crop(covered, draw.size, rng if self.crop == "random" else None)
        if self.flip and rng.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = np.array(image, dtype=np.uint8).reshape(*draw.size, self.channels)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def upright(image: Image.Image, channels: int) -> Image.Image:
    """Turned as its EXIF data says, 8 bits, gray or RGB; transparency is put on white.

    Raises:
        ValueError: numbers without a fixed range.
    """
    image = ImageOps.exif_transpose(image) or image
    if image.mode == "F":
        raise ValueError("an image of floating-point numbers has no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("an image of 32-bit numbers has no fixed range; save it with 8 or 16 bits")
        image = Image.fromarray((values / 65535 * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def cover(image: Image.Image, size: Size) -> Image.Image:
    """As ADM prepares ImageNet: halved while it is twice as large, then bicubic, until it just covers `size`.

    An image of that size stays as it is. (Spec: pixeldit2, 10.)
    """
    height, width = size
    while min(image.width / width, image.height / height) >= 2:
        image = image.resize((image.width // 2, image.height // 2), _BOX)
    scale = max(width / image.width, height / image.height)
    if scale == 1:
        return image
    return image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))), _BICUBIC)


def cover_lanczos(image: Image.Image, size: Size) -> Image.Image:
    """As PixelHDM prepares images of buckets (spec: pixelhdm, 12)."""
    height, width = size
    scale = max(width / image.width, height / image.height)
    if abs(scale - 1) <= 1e-6:
        return image
    return image.resize((max(int(image.width * scale), width), max(int(image.height * scale), height)), _LANCZOS)


def _crop(image: Image.Image, size: Size, rng: random.Random | None) -> Image.Image:
    height, width = size
    left, top = image.width - width, image.height - height
    left, top = (left // 2, top // 2) if rng is None else (rng.randint(0, left), rng.randint(0, top))
    return image.crop((left, top, left + width, top + height))
