"""ODE solvers: pure functions of a velocity, a start and a grid of times.

Each takes `velocity(x, t)`, the state `x` at `times[0]`, and `times` [N + 1] (0 = noise, 1 = image), and returns the
state at `times[-1]`. `on_step(i, t, x, v)` is called after step i with the time and state reached and the velocity
used for the step: that at its start, for the Heun solvers the mean of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, float, Tensor, Tensor], None]


class Solver(Protocol):
    """(velocity, x at times[0], times [N + 1], on_step) -> x at times[-1]."""

    def __call__(self, velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = ...) -> Tensor: ...


def euler(velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Euler: N calls of the network."""
    for i, (t, t_next) in enumerate(_steps(times)):
        v = velocity(x, t)
        x = torch.add(x, v, alpha=t_next - t)
        if on_step:
            on_step(i, t_next, x, v)
    return x


def ab2(velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Adams-Bashforth of order 2: N calls; the published solver ("FlowDPMSolver").

    Its weights are those of equal steps, also on a shifted grid, and its first step is Euler's: so it was published.
    """
    v_before: Tensor | None = None
    for i, (t, t_next) in enumerate(_steps(times)):
        v = velocity(x, t)
        step = t_next - t
        if v_before is None:
            x = torch.add(x, v, alpha=step)
        else:
            x = torch.add(x, v, alpha=1.5 * step).sub_(v_before, alpha=0.5 * step)
        v_before = v
        if on_step:
            on_step(i, t_next, x, v)
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = None, *, exact: bool = False) -> Tensor:
    """Heun as published: N calls, a step starts with the velocity that the step before found at its predicted point.

    With `exact` the velocity at the start is evaluated again (2N - 1 calls). Where the next time is 1 the step is
    Euler's: the network is never asked about a finished image.
    """
    v_next: Tensor | None = None
    for i, (t, t_next) in enumerate(_steps(times)):
        v = velocity(x, t) if v_next is None or exact else v_next
        if t_next < 1:
            v_next = velocity(torch.add(x, v, alpha=t_next - t), t_next)
            v = (v + v_next) / 2
        x = torch.add(x, v, alpha=t_next - t)
        if on_step:
            on_step(i, t_next, x, v)
    return x


def heun_exact(velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Heun, second order: 2N - 1 calls, since the step to t = 1 has no corrector."""
    return heun(velocity, x, times, on_step, exact=True)


def flow_dpmpp_2m(velocity: Velocity, x: Tensor, times: Tensor, on_step: OnStep | None = None) -> Tensor:
    """DPM-Solver++ of order 2 in ln(t / (1 - t)), multistep: N calls; text-to-image's published solver.

    First and last step are of first order. Not ComfyUI's `dpmpp_2m`, which steps in -ln(1 - t).
    """
    before, h_before = x, math.inf
    steps = _steps(times)
    for i, (t, t_next) in enumerate(steps):
        v = velocity(x, t)
        if t_next == t:  # a step of no length
            if on_step:
                on_step(i, t_next, x, v)
            continue
        image = torch.add(x, v, alpha=1.0 - t)  # where the flow would end if it went on straight
        decay = t * (1.0 - t_next) / ((1.0 - t) * t_next)  # exp(-h)
        h = -math.log(decay) if decay > 0 else math.inf
        target = image
        if 0 < i < len(steps) - 1 and h_before < math.inf:
            target = torch.lerp(before, image, 1.0 + h / (2.0 * h_before))
        x = torch.add(x * ((1.0 - t_next) / (1.0 - t)), target, alpha=t_next * (1.0 - decay))
        before, h_before = image, h
        if on_step:
            on_step(i, t_next, x, v)
    return x


def _steps(times: Tensor) -> list[tuple[float, float]]:
    values = [float(t) for t in times.cpu()]  # plain numbers once: no synchronization inside the loop
    return list(pairwise(values))


SOLVERS: dict[str, Solver] = {
    "ab2": ab2,
    "euler": euler,
    "heun": heun,
    "heun_exact": heun_exact,
    "flow_dpmpp_2m": flow_dpmpp_2m,
}
