"""Time grids: t runs from 0 (noise) to 1 (image).

A grid is (steps, timeshift, last_step, times the network was trained on) -> times.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

Time = TypeVar("Time", float, Tensor)
TimeRange = tuple[float, float]
_ALL: TimeRange = (0.0, 1.0)


class Grid(Protocol):
    """steps, timeshift, unshifted length of the last step (None = automatic), trained times -> times [steps + 1]."""

    def __call__(
        self, steps: int, timeshift: float = ..., last_step: float | None = ..., time_range: TimeRange = ...
    ) -> Tensor: ...


def shift_time(t: Time, timeshift: float) -> Time:
    """t / (t + (1 - t) * timeshift): above 1, more steps near the noise; 0 and 1 stay where they are."""
    return t / (t + (1 - t) * timeshift)


def even_times(start: float, end: float, count: int) -> Tensor:
    """float32 [count] on the CPU from `start` to `end`: torch.linspace, with the same last bits on every processor.

    A product and a sum are rounded once, as the fused instructions do that the published programs' machines have. Where
    torch.linspace has none it rounds twice, and a time that lies on a guidance limit falls on its other side.
    """
    first, last = torch.tensor([start, end], dtype=torch.float32)
    step = ((last - first) / max(count - 1, 1)).double()
    index = torch.arange(count)
    ahead, back = first.double() + step * index, last.double() - step * (count - 1 - index)
    return torch.where(index < max(count // 2, 1), ahead, back).float()


def linear_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """The official class-conditional grid: float32 [steps + 1] on the CPU, first 0, last 1.

    `last_step` is the unshifted length of the last step (None = 1 / steps). Computed exactly as the published
    program does: another order of operations lands on the other side of a guidance limit at some numbers of steps.

    Raises:
        ValueError: steps below 1, timeshift not above 0, last_step outside (0, 1].
    """
    _check(steps, timeshift)
    if last_step is None or steps == 1:
        last_step = 1.0 / steps
    if not 0 < last_step <= 1:
        raise ValueError(f"last_step is {last_step}; it must be above 0 and at most 1.")
    times = even_times(0.0, 1.0 - last_step, steps)
    return shift_time(torch.cat([times, torch.ones(1)]), timeshift)


def unit_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """Even steps, float32 [steps + 1] from 0 to 1, as `even_times` rounds them.

    Of a reference convention: where a guidance limit lies on a time, the last bit decides. Shifted with a timeshift.

    Raises:
        ValueError: steps below 1, timeshift not above 0, a last_step.
    """
    _check(steps, timeshift)
    if last_step is not None:
        raise ValueError("this convention has no last_step of its own; leave it out.")
    times = even_times(0.0, 1.0, steps + 1)
    return times if timeshift == 1 else shift_time(times, timeshift)


def sigma_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """The official text-to-image grid: float32 [steps + 1] on the CPU, from just above 0 to 1.

    It is linear in the share of noise, shifted, and starts at a share of 0.999 (before the shift) though the state is
    pure noise: so it was published. `last_step` has no meaning here.

    Raises:
        ValueError: steps below 2, timeshift not above 0, a last_step.
    """
    _check(steps, timeshift, "the text-to-image grid")
    if last_step is not None:
        raise ValueError("the text-to-image grid has no last_step of its own; leave it out.")
    share = 1 - even_times(1.0, 0.001, steps + 1)
    sigma = (timeshift * share / (1 + (timeshift - 1) * share)).flip(0)
    return 1 - sigma


def trained_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """For a network that was trained on a part of the times only: float32 [steps + 1], the last 1.

    Even steps over `time_range`, shifted within it, and one more from its end to the image estimate. The state at the
    first time is pure noise all the same.

    Raises:
        ValueError: steps below 2, timeshift not above 0, a last_step.
    """
    _check(steps, timeshift, "a grid over trained times")
    if last_step is not None:
        raise ValueError("this model's last step leads from the last time it was trained on; leave last_step out.")
    return torch.cat([_trained_times(steps - 1, timeshift, time_range), torch.ones(1)])


def cut_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """The reference convention's: float32 [steps + 1]; it ends where training did, some noise left in the image."""
    _check(steps, timeshift)
    return _trained_times(steps, timeshift, time_range)


def even_grid(
    steps: int, timeshift: float = 1.0, last_step: float | None = None, time_range: TimeRange = _ALL
) -> Tensor:
    """float64 [steps + 1] from 0 to 1, whatever the timeshift: of a reference convention with network times of its own.

    Raises:
        ValueError: steps below 1, timeshift not above 0, a last_step.
    """
    _check(steps, timeshift)
    if last_step is not None:
        raise ValueError("this convention has no last_step of its own; leave it out.")
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def _trained_times(steps: int, timeshift: float, time_range: TimeRange) -> Tensor:
    start, end = time_range
    if timeshift == 1:
        return even_times(start, end, steps + 1)
    return start + (end - start) * shift_time(even_times(0.0, 1.0, steps + 1), timeshift)


def _check(steps: int, timeshift: float, at_least_two: str = "") -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed.")
    if steps < 2 and at_least_two:
        raise ValueError(f"steps is {steps}; {at_least_two} needs at least 2.")
    if not timeshift > 0:
        raise ValueError(f"timeshift is {timeshift}; it must be above 0 (1 = evenly spaced).")
