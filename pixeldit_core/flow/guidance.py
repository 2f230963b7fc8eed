"""Classifier-free guidance on an interval of time (paper section 4; Kynkaanniemi et al., arXiv 2404.07724)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 1e-5  # a grid time that lies on a limit is outside, however it was rounded on its way here

Combine = Callable[[Tensor, Tensor, float], Tensor]
Guided = Callable[[float, tuple[float, float], "float | Combine"], bool]  # (t, interval, cfg) -> whether it applies


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
    """Whether guidance applies to a network call at the (shifted) time `t`: strictly inside of the interval."""
    start, end = interval
    return start + MARGIN < float(t) < end - MARGIN


def inside(t: float, interval: tuple[float, float], cfg: float | Combine) -> bool:
    """The house's rule of guidance: `is_guided`, whatever the scale."""
    return is_guided(t, interval)


def guided_velocity(
    velocity: Callable[[Tensor, Any, Any], Tensor],
    cond: Any,
    null: Any | None,
    cfg: float | Combine,
    interval: tuple[float, float],
    guided: Guided = inside,
) -> Callable[[Tensor, Any], Tensor]:
    """A velocity function of (x, t) alone, with guidance inside of the interval.

    A guided call is one call on twice the batch, null rows first; any other is one call on the conditional rows.
    Texts of different length are padded where a mask tells the network so; else they take two calls.

    Args:
        velocity: (x, t, condition) -> velocity.
        cond: conditions, one row per image: a tensor or a tuple of tensors.
        null: the same for no condition; None = never guided.
        cfg: scale, 1 = never guided; or a function (v_cond, v_null, t) -> velocity.
        interval: start and end, in t.
        guided: (t, interval, cfg) -> whether guidance applies at the time t.
    """
    interval = check_interval(interval)
    if null is None or (not callable(cfg) and cfg == 1):
        return lambda x, t: velocity(x, t, cond)
    both = concatenate(null, cond) if fit_together(null, cond) else None

    def combined(x: Tensor, t: Any) -> Tensor:
        if not guided(float(t), interval, cfg):
            return velocity(x, t, cond)
        if both is None:
            v_null, v_cond = velocity(x, t, null), velocity(x, t, cond)
        else:
            v_null, v_cond = velocity(torch.cat([x, x]), t, both).chunk(2)
        return cfg(v_cond, v_null, float(t)) if callable(cfg) else torch.lerp(v_null, v_cond, cfg)

    return combined


def fit_together(first: Any, second: Any) -> bool:
    """Whether two conditions fit into one batch: alike but for their number of rows, or texts that can be padded."""
    if not isinstance(first, tuple):
        return first.shape[1:] == second.shape[1:]
    if any((a is None) != (b is None) for a, b in zip(first, second, strict=True)):
        return False
    first, second = _padded(first, second)
    return all(a is None or fit_together(a, b) for a, b in zip(first, second, strict=True))


def concatenate(first: Any, second: Any) -> Any:
    """Rows of two conditions (tensors, or tuples of tensors and None) after one another."""
    if isinstance(first, tuple):
        pairs = zip(*_padded(first, second), strict=True)
        return tuple(None if a is None else torch.cat([a, b]) for a, b in pairs)
    return torch.cat([first, second])


def _padded(first: tuple, second: tuple) -> tuple[tuple, tuple]:
    """Two texts (states [B, T, D], mask [B, T], ...) at the longer one's length; as they are if there is no mask."""
    if len(first) < 2 or first[1] is None or first[0].shape[1] == second[0].shape[1]:
        return first, second
    length = max(first[0].shape[1], second[0].shape[1])
    return pad_text(first, length), pad_text(second, length)


def pad_text(text: tuple, length: int) -> tuple:
    """A text (states [B, T, D], mask [B, T], ...) with padding behind it that its mask leaves out."""
    states, mask, *others = text
    more = length - states.shape[1]
    return F.pad(states, (0, 0, 0, more)), F.pad(mask, (0, more)), *others
