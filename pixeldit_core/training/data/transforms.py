"""From an image of any kind and size to the pixels that a network sees."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...resize import center_crop, cover, cover_lanczos, upright
from ...sizes import Size
from .order import Draw


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


def _crop(image: Image.Image, size: Size, rng: random.Random | None) -> Image.Image:
    if rng is None:
        return center_crop(image, size)
    height, width = size
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))
