"""Mean and spread of the pictures that a network was trained on, as its params have them."""

from __future__ import annotations

import math
from typing import Any


def expand_normalization(params: Any) -> None:
    """Gives `params` one number for each channel where it has one for all.

    Raises:
        ValueError: another count of them, one that is not finite, a spread that is not above 0.
    """
    for name in ("image_mean", "image_std"):
        object.__setattr__(params, name, _each_channel(name, getattr(params, name), params.in_channels))
    if min(params.image_std) <= 0:
        raise ValueError(f"image_std is {list(params.image_std)}; each must be greater than 0.")


def _each_channel(name: str, values: Any, channels: int) -> tuple[float, ...]:
    values = tuple(values)
    if len(values) == 1:
        values *= channels
    if len(values) != channels or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} is {list(values)}; it must be one number for each of {channels} channels.")
    return values
