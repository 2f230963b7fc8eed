"""Sizes that models were trained on, as (height, width), and how far another size is from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

Size = tuple[int, int]

# The official text-to-image buckets, from wide to tall: about 512 x 512 and 1024 x 1024 pixels each.
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

FAR = 0.25  # of `distance`: about a quarter of the width or of the height


def distance(a: Size, b: Size) -> float:
    """How different two sizes are: 0 = equal, 0.25 = one side longer by about a quarter."""
    return math.hypot(math.log(a[0] / b[0]), math.log(a[1] / b[1]))


def nearest(size: Size, trained: Iterable[Size]) -> Size:
    """The trained size that is most like `size`, the first of several."""
    return min(trained, key=lambda known: distance(size, known))


def advise(size: Size, trained: Iterable[Size]) -> str | None:
    """A sentence about a size that is far from every trained one; None for any other."""
    closest = nearest(size, trained)
    if distance(size, closest) <= FAR:
        return None
    return (
        f"{size[1]} x {size[0]} is far from every size that the model was trained on, so the picture may repeat or "
        f"fall apart; the nearest is {closest[1]} x {closest[0]}"
    )


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


@functools.cache
def pixelhdm_buckets(least: int = 256, most: int = 1024, patch: int = 16, extreme: float = 2.0) -> tuple[Size, ...]:
    """The sizes that PixelHDM's trainer sorts pictures into, by area (spec: pixelhdm, section 12).

    Args:
        least: shortest side.
        most: longest side.
        patch: sides are multiples of this.
        extreme: longest side over shortest.
    """
    sides = [side // patch * patch for side in (*range(least, most + 1, 4 * patch), most)]
    sides = sorted({side for side in sides if side >= least})
    aspects = [aspect for aspect in _ASPECTS if 1 / extreme <= aspect <= extreme]
    found = {(side, side) for side in sides}
    found |= {(int(math.sqrt(side**2 * a)), int(math.sqrt(side**2 / a))) for side in sides for a in aspects}
    large = [side for side in sides if side >= most // 2] or sides[-3:]  # these are also the longer side
    found |= {(side, int(side / a)) if a > 1 else (int(side * a), side) for side in large for a in aspects if a != 1}
    floored = {(width // patch * patch, height // patch * patch) for width, height in found}
    fitting = [(w, h) for w, h in floored if min(w, h) >= least and max(w, h) <= most]
    fitting = [(w, h) for w, h in fitting if 1 / extreme - 1e-9 <= w / h <= extreme + 1e-9]
    return tuple((h, w) for w, h in sorted(fitting, key=lambda size: (size[0] * size[1], size[0])))


_ASPECTS = (1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16, 2, 1 / 2)  # width / height
