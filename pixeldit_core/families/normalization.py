"""Mean and std of the images that a network was trained on, as its params have them.

A network's range is (pixel - image_mean) / image_std with pixels in [0, 1]: mean and std of 0.5 make [-1, 1].
"""

from __future__ import annotations

import math
from typing import Protocol


class Normalization(Protocol):
    """What params of every family have of it."""

    @property
    def in_channels(self) -> int: ...
    @property
    def image_mean(self) -> tuple[float, ...]: ...
    @property
    def image_std(self) -> tuple[float, ...]: ...


def expand_normalization(params: Normalization) -> None:
    """Gives frozen `params` one number for each channel where it has one for all.

    Raises:
        ValueError: another count of them, one that is not finite, a std that is not above 0.
    """
    for name in ("image_mean", "image_std"):
        object.__setattr__(params, name, _each_channel(name, getattr(params, name), params.in_channels))
    if min(params.image_std) <= 0:
        raise ValueError(f"image_std is {list(params.image_std)}; each must be greater than 0.")


def _each_channel(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    values = tuple(values)
    if len(values) == 1:
        values *= channels
    if len(values) != channels or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} is {list(values)}; it must be one number for each of {channels} channels.")
    return values
