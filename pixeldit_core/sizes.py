"""Image sizes as (height, width), and how far one is from the sizes that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable

Size = tuple[int, int]

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
        f"{size[1]} x {size[0]} is far from every size that the model was trained on, so the image may repeat or "
        f"fall apart; the nearest is {closest[1]} x {closest[0]}"
    )
