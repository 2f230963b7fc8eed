"""Sizes that PixelHDM was trained on, as (height, width)."""

from __future__ import annotations

import functools
import math

from ...sizes import Size

_ASPECTS = (1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16, 2, 1 / 2)  # width / height


@functools.cache
def pixelhdm_buckets(least: int = 256, most: int = 1024, patch: int = 16, extreme: float = 2.0) -> tuple[Size, ...]:
    """The sizes that PixelHDM's trainer sorts images into, by area (spec: pixelhdm, section 12).

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
