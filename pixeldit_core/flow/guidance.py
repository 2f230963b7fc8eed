"""Classifier-free guidance: on an interval of time, with scales that change over time, rescaled.

Paper, section 4; the interval is Kynkaanniemi et al., arXiv 2404.07724.

sample(..., cfg=cfg_function(cfg_schedule("cosine", 7.5), rescale=0.7))
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MARGIN = 1e-5  # a grid time that lies on a limit is outside, however it was rounded on its way here

CFGFunction = Callable[[Tensor, Tensor, float], Tensor]  # (v_cond, v_null, t) -> guided velocity
CFG = float | CFGFunction
Guided = Callable[[float, tuple[float, float], CFG], bool]  # (t, interval, cfg) -> whether guidance applies
Scale = Callable[[float], float]

# The share of the way from `end` to `start` that is left at time t: all of it at the noise.
CURVES: dict[str, Scale] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,
    "quadratic": lambda t: 1.0 - t * t,
}


def check_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval as two floats.

    Raises:
        ValueError: not 0 <= start < end <= 1.
    """
    start, end = (float(limit) for limit in interval)
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"the guidance interval is {start:g} to {end:g}; it needs 0 <= start < end <= 1 (0 = noise, 1 = image)."
        )
    return start, end


def is_guided(t: float | Tensor, interval: tuple[float, float]) -> bool:
    """Whether guidance applies to a network call at the (shifted) time `t`: strictly inside the interval."""
    start, end = interval
    return start + MARGIN < float(t) < end - MARGIN


def inside(t: float, interval: tuple[float, float], cfg: CFG) -> bool:
    """The standard convention's test: `is_guided`, whatever the scale."""
    return is_guided(t, interval)


def guided_velocity(
    conditional: Callable[[Tensor, float], Tensor],
    pair: Callable[[Tensor, float], tuple[Tensor, Tensor]] | None,
    cfg: CFG,
    interval: tuple[float, float],
    guided: Guided = inside,
) -> Callable[[Tensor, float], Tensor]:
    """A velocity function of (x, t) with guidance inside the interval.

    Args:
        conditional: (x, t) -> velocity with the condition; all that is called outside the interval.
        pair: (x, t) -> velocities without and with the condition; None = never guided.
        cfg: scale, 1 = never guided; or a function (v_cond, v_null, t) -> velocity.
        interval: start and end, in t.
        guided: (t, interval, cfg) -> whether guidance applies at the time t.

    Raises:
        ValueError: not 0 <= start < end <= 1.
    """
    interval = check_interval(interval)
    if pair is None or (not callable(cfg) and cfg == 1):
        return conditional

    def velocity(x: Tensor, t: float) -> Tensor:
        if not guided(t, interval, cfg):
            return conditional(x, t)
        v_null, v_cond = pair(x, t)
        return cfg(v_cond, v_null, t) if callable(cfg) else torch.lerp(v_null, v_cond, cfg)

    return velocity


def cfg_schedule(kind: str, start: float, end: float = 1.0) -> Scale:
    """A scale over time: `start` at the noise, `end` at the image; "constant" stays at `start`.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in CURVES:
        raise ValueError(f'schedule "{kind}" is not known; there are {", ".join(CURVES)}.')
    return lambda t: end + (start - end) * CURVES[kind](t)


def cfg_function(scale: float | Scale, *, rescale: float = 0.0, temperature: float | None = None) -> CFGFunction:
    """A function (v_cond, v_null, t) -> guided velocity.

    Args:
        scale: a number, or a function of t such as a `cfg_schedule`.
        rescale: 0 to 1, how far the contrast is brought back to that of v_cond (Lin et al., arXiv 2305.08891).
        temperature: weakens guidance, image by image, where the two velocities are far apart: the scale is
            multiplied by sigmoid(-mean |v_cond - v_null| / temperature), one half at most. None = not at all.

    Raises:
        ValueError: rescale outside [0, 1], a temperature that is not above 0.
    """
    check_rescale(rescale)
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0.")

    def guided(v_cond: Tensor, v_null: Tensor, t: float) -> Tensor:
        weight: float | Tensor = scale(t) if callable(scale) else scale
        if temperature is not None:
            difference = _rows(v_cond - v_null).abs().mean(dim=1)
            weight = _for_rows(weight * torch.sigmoid(-difference / temperature), v_cond)
        v = torch.lerp(v_null, v_cond, weight)
        return match_contrast(v, v_cond, rescale) if rescale else v

    return guided


def check_rescale(factor: float) -> float:
    """The factor of rescaling as a float.

    Raises:
        ValueError: outside [0, 1].
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"the rescale factor is {factor:g}; it must be from 0 (off) to 1 (all of it).")
    return float(factor)


def match_contrast(guided: Tensor, v_cond: Tensor, factor: float) -> Tensor:
    """`guided` with its standard deviation, image by image, brought to that of `v_cond` by the share `factor`."""
    ratio = _rows(v_cond).std(dim=1) / (_rows(guided).std(dim=1) + 1e-8)
    return guided * _for_rows(factor * ratio + (1.0 - factor), guided)


def _rows(v: Tensor) -> Tensor:
    return v.float().flatten(1)


def _for_rows(values: Tensor, v: Tensor) -> Tensor:
    """One value per image, in a shape and type that multiplies `v`."""
    return values.to(v.dtype).view(-1, *[1] * (v.ndim - 1))
