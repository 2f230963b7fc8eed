"""From an image of any kind and size to one that covers a size, as ADM and PixelHDM prepare theirs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

Size = tuple[int, int]  # height, width

_BOX, _BICUBIC, _LANCZOS = Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


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


def center_crop(image: Image.Image, size: Size) -> Image.Image:
    """The middle of an image that covers `size`."""
    height, width = size
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
