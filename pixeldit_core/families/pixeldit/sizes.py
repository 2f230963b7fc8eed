"""Sizes that the official text-to-image model was trained on, as (height, width)."""

from __future__ import annotations

import math

from ...sizes import Size

# From wide to tall: about 512 x 512 and 1024 x 1024 pixels each.
BUCKETS: dict[int, tuple[Size, ...]] = {
    512: (
        (256, 1024), (256, 928), (288, 896), (288, 864), (288, 832), (320, 800), (320, 768), (352, 736), (352, 704),
        (352, 672), (384, 672), (384, 640), (416, 608), (416, 576), (448, 576), (448, 544), (480, 544), (480, 512),
        (512, 512),
        (512, 480), (544, 480), (544, 448), (576, 448), (576, 416), (608, 416), (640, 384), (672, 384), (704, 352),
        (736, 352), (768, 320), (800, 320), (864, 288), (1024, 256),
    ),
    1024: (
        (512, 2048), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600), (640, 1536), (704, 1472),
        (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088),
        (960, 1088), (960, 1024),
        (1024, 1024),
        (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832), (1216, 832), (1280, 768), (1344, 768),
        (1408, 704), (1472, 704), (1536, 640), (1600, 640), (1728, 576), (2048, 512),
    ),
}  # fmt: skip


def bucket(resolution: int, aspect: float) -> Size:
    """The trained text-to-image size for an aspect of width / height.

    Raises:
        ValueError: a resolution without buckets, an aspect not above 0.
    """
    if resolution not in BUCKETS:
        raise ValueError(f"resolution is {resolution}; there are {', '.join(map(str, BUCKETS))}.")
    if not aspect > 0:
        raise ValueError(f"the aspect (width / height) is {aspect}; it must be above 0.")
    return min(BUCKETS[resolution], key=lambda size: abs(math.log(size[1] / size[0] / aspect)))
