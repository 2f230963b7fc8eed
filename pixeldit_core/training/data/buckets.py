"""Aspect buckets: sizes of about the same shape and number of pixels as the images have (spec: pixelhdm, 12)."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterable, Sequence

from ...families.pixelhdm.sizes import pixelhdm_buckets
from ...sizes import Size
from ..config import Arrangement

_CHUNK = 4  # buckets of similar area that "buffered_shuffle" keeps together


def bucket_sizes(min_side: int, max_side: int, multiple: int, max_aspect: float = 2.0) -> tuple[Size, ...]:
    """All buckets, (height, width), smallest area first.

    Raises:
        ValueError: no bucket has sides between these.
    """
    found = pixelhdm_buckets(min_side, max_side, multiple, max_aspect)
    if not found:
        raise ValueError(f"no bucket has sides from {min_side} to {max_side} that are multiples of {multiple}.")
    return found


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket of an image of (height, width): of those that are not larger, the one like it in shape and area."""
    height, width = size
    if height <= 0 or width <= 0:
        return buckets[0]
    area, aspect = width * height, math.log(width / height)
    fitting = [(h, w) for h, w in buckets if h * w <= area]
    if fitting:
        return min(fitting, key=lambda b: 0.7 * abs(aspect - math.log(b[1] / b[0])) + 0.3 * (area - b[0] * b[1]) / area)
    return nearest_aspect(size, [bucket for bucket in buckets if math.prod(bucket) == math.prod(buckets[0])])


def nearest_aspect(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket that is most like an image of (height, width) in shape; the first of an image of unknown size."""
    height, width = size
    if height <= 0 or width <= 0:
        return buckets[0]
    return min(buckets, key=lambda bucket: abs(math.log(width / height) - math.log(bucket[1] / bucket[0])))


def nearest_buckets(sizes: Iterable[Size], buckets: Sequence[Size], *, by_aspect: bool = False) -> list[Size]:
    """The bucket of each image: `nearest_bucket`, or `nearest_aspect` where all buckets have about one area."""
    nearest = functools.cache(functools.partial(nearest_aspect if by_aspect else nearest_bucket, buckets=buckets))
    return [nearest(size) for size in sizes]


def arrange_batches(
    ids: Sequence[int], batch_size: int, rng: random.Random, *, arrangement: Arrangement = "random", drop_last: bool
) -> list[list[int]]:
    """Batches of indices of one bucket each, from the number of each image's bucket; buckets are numbered by area.

    The reference arranges by "buffered_shuffle" with random.Random(42 + epoch), and stays in epoch 0.

    Args:
        arrangement: "random", any batch after any other; "buffered_shuffle", bucket after bucket, some of similar area
            at a time; "ascending" or "descending" by area, nothing shuffled.
    """
    members: dict[int, list[int]] = {}
    for index, bucket in enumerate(ids):
        members.setdefault(bucket, []).append(index)
    buckets = _arrange(list(members), arrangement, rng)
    if arrangement in ("random", "buffered_shuffle"):
        for bucket in buckets:
            rng.shuffle(members[bucket])
    batches = [batch for bucket in buckets for batch in cut(members[bucket], batch_size, drop_last)]
    if arrangement == "random":
        rng.shuffle(batches)
    return batches


def cut(indices: list[int], batch_size: int, drop_last: bool) -> list[list[int]]:
    """Batches, one after the other; the last may be short."""
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return batches[:-1] if drop_last and batches and len(batches[-1]) < batch_size else batches


def _arrange(buckets: list[int], arrangement: Arrangement, rng: random.Random) -> list[int]:
    if arrangement == "random":
        return buckets  # as they appear
    ordered = sorted(buckets, reverse=arrangement == "descending")
    if arrangement != "buffered_shuffle":
        return ordered
    chunks = [ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK)]
    rng.shuffle(chunks)
    return [bucket for chunk in chunks for bucket in chunk]
