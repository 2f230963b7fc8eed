"""Sampling conventions, as data: correct ODE sampling, or exactly what a published program does instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

from .guidance import Guided, inside
from .times import Grid

ConventionName = Literal["standard", "reference"]
CONVENTIONS: tuple[ConventionName, ...] = ("standard", "reference")

Condition = TypeVar("Condition")


def integration_time(t: float, timeshift: float) -> float:
    """The standard network time: where the integration is."""
    return t


@dataclass(frozen=True)
class Convention:
    """How a trajectory is integrated, besides the solver. The defaults are the standard convention's."""

    grid: Grid
    network_time: Callable[[float, float], float] = integration_time  # (t, timeshift) -> time passed to the network
    guided: Guided = inside
    min_noise_level: float = 0.0  #                       lower bound on 1 - t where a velocity is divided by it
    to_uint8: Callable[[Tensor], Tensor] | None = None  # rounding of pixels in [-1, 1]; None = the family's

    def velocity(
        self, velocity: Callable[[Tensor, float, Condition], Tensor], timeshift: float
    ) -> Callable[[Tensor, float, Condition], Tensor]:
        """The (x, t, condition) -> velocity to integrate, from that of a model."""

        def integrated(x: Tensor, t: float, condition: Condition) -> Tensor:
            time = self.network_time(t, timeshift)
            v = velocity(x, time, condition)
            return v * self.damping(time) if time > 1 - self.min_noise_level else v

        return integrated

    def damping(self, time: float) -> float:
        """The factor that the lower bound puts on a velocity at this network time."""
        return (1 - time) / max(1 - time, self.min_noise_level)
