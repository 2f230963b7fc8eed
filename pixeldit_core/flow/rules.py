"""A rule of walking from noise to image, as data: the correct one, or what a published program does instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .guidance import Guided, inside


@dataclass(frozen=True)
class Rule:
    """What a walk consists of, beside the solver. The defaults are those of the house.

    `floor` damps the end of a walk: where 1 - clock is below it, a velocity is divided by it in place of 1 - clock.
    """

    grid: Callable[..., Tensor]  #                                    (steps, timeshift, last_step, params) -> times
    clock: Callable[[float, float], float] = lambda t, timeshift: t  # what the network is told: not always where it is
    guided: Guided = inside
    floor: float = 0.0
    to_uint8: Callable[[Tensor], Tensor] | None = None  #              None = the family's

    def velocity(self, velocity: Callable, timeshift: float) -> Callable:
        """The (x, t, condition) -> velocity to walk along, from that of a model."""

        def walked(x: Tensor, t: float, condition: Any) -> Tensor:
            clock = self.clock(t, timeshift)
            v = velocity(x, clock, condition)
            return v * self.damping(clock) if clock > 1 - self.floor else v

        return walked

    def damping(self, clock: float) -> float:
        """By how much a velocity at this time is scaled."""
        return (1 - clock) / max(1 - clock, self.floor)
