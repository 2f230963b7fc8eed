"""Learning rates, as a function of the step alone: nothing of a schedule has to be stored."""

from __future__ import annotations

import math

from .config import OptimConfig


def learning_rate_at(step: int, config: OptimConfig, total: int) -> float:
    """The learning rate of step number `step`, from 0, of `total`.

    A linear warm-up, a plateau, and a fall along a line or half a cosine: over the last `decay` of the run, but not
    before the warm-up ends.
    """
    highest, lowest = config.learning_rate, min(config.min_learning_rate, config.learning_rate)
    rise = (step + 1) / config.warmup if config.warmup else 1.0
    length = min(config.decay * total, total - config.warmup)
    left = 1.0
    if config.schedule != "constant" and length > 0:
        left = max(0.0, min(1.0, (total - step) / length))
    if config.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return min(highest * min(1.0, rise), lowest + (highest - lowest) * left)
