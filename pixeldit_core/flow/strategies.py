"""Other ways of guidance than one scale throughout: what `sample` takes as a function for `cfg`.

sample(..., cfg=combine(schedule("cosine", 7.5), rescale=0.7))
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .guidance import Combine

Scale = Callable[[float], float]

# How much of the way from `end` to `start` is left at time t: all of it at the noise.
SHAPES: dict[str, Scale] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,
    "quadratic": lambda t: 1.0 - t * t,
}


def schedule(kind: str, start: float, end: float = 1.0) -> Scale:
    """A scale over time: `start` at the noise, `end` at the image; "constant" stays at `start`.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in SHAPES:
        raise ValueError(f'schedule "{kind}" is not known; there are {", ".join(SHAPES)}.')
    return lambda t: end + (start - end) * SHAPES[kind](t)


def combine(scale: float | Scale, *, rescale: float = 0.0, temperature: float | None = None) -> Combine:
    """A function (v_cond, v_null, t) -> guided velocity.

    Args:
        scale: a number, or a function of t such as a `schedule`.
        rescale: 0 to 1, how far the contrast is brought back to that of v_cond (Lin et al., arXiv 2305.08891).
        temperature: weakens guidance, image by image, where the two velocities are far apart: the scale is
            multiplied by sigmoid(-mean |v_cond - v_null| / temperature), one half at most. None = not at all.

    Raises:
        ValueError: rescale outside of 0 to 1, a temperature that is not above 0.
    """
    check_rescale(rescale)
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0.")

    def combined(v_cond: Tensor, v_null: Tensor, t: float) -> Tensor:
        weight = scale(t) if callable(scale) else scale
        if temperature is not None:
            apart = _rows(v_cond - v_null).abs().mean(dim=1)
            weight = _for_rows(weight * torch.sigmoid(-apart / temperature), v_cond)
        guided = torch.lerp(v_null, v_cond, weight)
        return match_contrast(guided, v_cond, rescale) if rescale else guided

    return combined


def check_rescale(factor: float) -> float:
    """The factor of rescaling as a float.

    Raises:
        ValueError: outside of 0 to 1.
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
