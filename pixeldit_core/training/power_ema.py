"""Power-function averages, and averages of any length from snapshots of them (Karras et al., arXiv 2312.02696, 3).

The average of profile gamma weighs the weights of time tau by tau^gamma; its length is the relative standard deviation
of that profile. A snapshot is such an average at one time. Any profile is close to a sum of the snapshots' profiles,
and the average that belongs to it to the same sum of the snapshots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def gamma_of(length: float) -> float:
    """The exponent of a profile of relative standard deviation `length` (eq. 123: a cubic equation).

    Raises:
        ValueError: a length that no profile of gamma > 0 has: it is above 0 and below 0.28.
    """
    if not 0 < length < 0.28:
        raise ValueError(f"length {length} is not a relative width of an average: it is above 0 and below 0.28.")
    inverse = length**-2
    return float(max(np.roots([1, 7, 16 - inverse, 12 - inverse]).real))


def length_of(gamma: float) -> float:
    """The relative standard deviation of tau^gamma on [0, t]."""
    return math.sqrt(gamma + 1) / (gamma + 2) / math.sqrt(gamma + 3)


def beta(gamma: float, step: int) -> float:
    """What an average keeps of itself in step number `step`, counted from 1 (eq. 127)."""
    return (1 - 1 / step) ** (gamma + 1)


def inner_product(time_a: float, gamma_a: float, time_b: float, gamma_b: float) -> float:
    """The integral of the product of two normalized profiles, that end at their times (algorithm 3).

    Each is (gamma + 1) tau^gamma / time^(gamma + 1) up to its time and 0 after it.
    """
    early = min(time_a, time_b)
    exponent = gamma_a + gamma_b + 1
    scale = (gamma_a + 1) * (gamma_b + 1) / exponent
    # as ratios: powers of the times themselves overflow
    return scale * (early / time_a) ** gamma_a * (early / time_b) ** gamma_b * early / (time_a * time_b)


def fit(times: Sequence[float], gammas: Sequence[float], time: float, gamma: float) -> tuple[list[float], float]:
    """Weights of snapshots (time and gamma of each) whose sum of profiles is closest to another profile.

    Returns:
        the weights, by least squares, and the error of the sum: root mean square, relative to the profile.
    """
    pairs = list(zip(times, gammas, strict=True))
    products = np.array([[inner_product(*a, *b) for b in pairs] for a in pairs])
    target = np.array([inner_product(*a, time, gamma) for a in pairs])
    weights = np.linalg.lstsq(products, target, rcond=None)[0]
    square = inner_product(time, gamma, time, gamma)
    left = square - 2 * weights @ target + weights @ products @ weights
    return weights.tolist(), math.sqrt(max(left, 0.0) / square)
