"""Aspect buckets: sizes of about the same number of pixels as the images have (spec: pixelhdm, 12)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ...sizes import Size

_RATIOS = (1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16, 2, 1 / 2)  # width / height


def bucket_sizes(min_side: int, max_side: int, multiple: int, max_aspect: float = 2.0) -> list[Size]:
    """All buckets, (height, width), smallest area first.

    Raises:
        ValueError: no bucket has sides between these.
    """
    bases = [side for side in _floored(range(min_side, max_side + 1, 4 * multiple), multiple) if side >= min_side]
    largest = max_side // multiple * multiple
    bases += [largest] if largest >= min_side and largest not in bases else []
    ratios = [ratio for ratio in _RATIOS if 1 / max_aspect <= ratio <= max_aspect]
    found = {(base, base) for base in bases}  # width, height
    for base in bases:
        found |= {_of_area(base, ratio, multiple) for ratio in ratios}
    for base in [base for base in bases if base >= max_side // 2] or bases[-3:]:
        found |= {_of_edge(base, ratio, multiple) for ratio in ratios if ratio != 1}
    kept = [
        (height, width)
        for width, height in found
        if min_side <= min(width, height)
        and max(width, height) <= max_side
        and 1 / max_aspect - 1e-9 <= width / height <= max_aspect + 1e-9
    ]
    if not kept:
        raise ValueError(f"no bucket has sides from {min_side} to {max_side} that are multiples of {multiple}.")
    return sorted(kept, key=lambda size: (size[0] * size[1], size[1]))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket of an image of (height, width): of those that are not larger, the one like it in shape and area."""
    height, width = size
    if height <= 0 or width <= 0:
        return buckets[0]
    area, aspect = width * height, math.log(width / height)
    fitting = [(h, w) for h, w in buckets if h * w <= area]
    if fitting:
        return min(fitting, key=lambda b: 0.7 * abs(aspect - math.log(b[1] / b[0])) + 0.3 * (area - b[0] * b[1]) / area)
    smallest = buckets[0][0] * buckets[0][1]
    return min((b for b in buckets if b[0] * b[1] == smallest), key=lambda b: abs(aspect - math.log(b[1] / b[0])))


def buffered_batches(
    ids: Sequence[int], batch_size: int, rng: random.Random, *, drop_last: bool = True, chunk: int = 4
) -> list[list[int]]:
    """Batches of indices of one bucket each, from the bucket's number of each image, ordered by area.

    Some neighboring buckets at a time, in random order, so that memory use changes slowly.
    """
    members: dict[int, list[int]] = {}
    for index, bucket in enumerate(ids):
        members.setdefault(bucket, []).append(index)
    used = sorted(members)
    chunks = [used[i : i + chunk] for i in range(0, len(used), chunk)]
    rng.shuffle(chunks)
    batches: list[list[int]] = []
    for bucket in (bucket for part in chunks for bucket in part):
        indices = members[bucket]
        rng.shuffle(indices)
        batches += [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    return [batch for batch in batches if len(batch) == batch_size or not drop_last]


def _floored(sides: Sequence[int], multiple: int) -> list[int]:
    return [side // multiple * multiple for side in sides]


def _of_area(base: int, ratio: float, multiple: int) -> Size:
    """Width and height of the area of base * base."""
    width, height = int(math.sqrt(base * base * ratio)), int(math.sqrt(base * base / ratio))
    return width // multiple * multiple, height // multiple * multiple


def _of_edge(base: int, ratio: float, multiple: int) -> Size:
    """Width and height whose longer side is base."""
    width, height = (base, int(base / ratio)) if ratio > 1 else (int(base * ratio), base)
    return width // multiple * multiple, height // multiple * multiple
