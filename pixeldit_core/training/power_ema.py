"""Power-function averages, and averages of any length from snapshots of them (Karras et al., arXiv 2312.02696, 3).

The average of profile gamma weighs the weights of time tau by tau^gamma; its length is the relative standard deviation
of that profile. A snapshot is such an average at one time. Any profile is close to a sum of the snapshots' profiles,
and the average that belongs to it to the same sum of the snapshots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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


def inner_product(time_a: Any, gamma_a: Any, time_b: Any, gamma_b: Any) -> Any:
    """The integral of the product of two normalized profiles, that end at their times (algorithm 3).

    Each is (gamma + 1) tau^gamma / time^(gamma + 1) up to its time and 0 after it. Numbers, or arrays that broadcast.
    """
    early = np.minimum(time_a, time_b)
    exponent = gamma_a + gamma_b + 1
    scale = (gamma_a + 1) * (gamma_b + 1) / exponent
    # as ratios: powers of the times themselves overflow
    return scale * (early / time_a) ** gamma_a * (early / time_b) ** gamma_b * early / (time_a * time_b)


def fit(times: Sequence[float], gammas: Sequence[float], time: float, gamma: float) -> tuple[list[float], float]:
    """Weights of snapshots (time and gamma of each) whose sum of profiles is closest to another profile.

    Least squares with the weights summing to 1, so that weights of the network that never moved keep their size: with
    many snapshots they sum to 1 by themselves, with few the optimum would shrink the network by some percent.

    Discrete steps add no error: an average made with `beta` is the integral over its profile of weights that stay
    constant during each step.

    Returns:
        the weights, and the error of the sum: root mean square, relative to the profile.
    """
    weights, errors = _fit(times, gammas, time, np.array([gamma]))
    return weights[:, 0].tolist(), float(errors[0])


def reachable_lengths(
    times: Sequence[float], gammas: Sequence[float], time: float, error: float
) -> tuple[float, float] | None:
    """The shortest and longest average at `time` that snapshots give with at most this error; None = none."""
    lengths = np.geomspace(0.005, 0.279, 100)
    _, errors = _fit(times, gammas, time, np.array([gamma_of(length) for length in lengths]))
    reached = lengths[errors <= error]
    return (float(reached[0]), float(reached[-1])) if len(reached) else None


def _fit(
    times: Sequence[float], gammas: Sequence[float], time: float, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [snapshots, targets] and errors [targets] of several profiles that end at one time."""
    at, exponents = np.array(times, float)[:, None] / time, np.array(gammas, float)[:, None]
    products = inner_product(at, exponents, at.T, exponents.T)
    projections = inner_product(at, exponents, 1.0, targets[None])
    squares = inner_product(1.0, targets, 1.0, targets)
    norms = np.sqrt(np.diag(products))[:, None]  # profiles of norm 1 make a better condition number
    # minimum of the square under a constraint: its gradient is a multiple of that of the sum
    system = np.block([[products / norms / norms.T, 1 / norms], [1 / norms.T, np.zeros((1, 1))]])
    right = np.vstack([projections / norms, np.ones((1, len(targets)))])
    weights = np.linalg.solve(system, right)[:-1] / norms
    left = squares - 2 * (weights * projections).sum(0) + (weights * (products @ weights)).sum(0)
    return weights, np.sqrt(np.maximum(left, 0.0) / squares)
