"""The loss curve as an image, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic import atomic_path

_SIZE = (900, 500)
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 50, 860, 450  # of the plot, in pixels
_SCALE = 2  # drawn larger, then reduced: smooth lines
_INK, _GRID, _RAW, _SMOOTH = (40, 44, 52), (226, 229, 234), (176, 200, 232), (28, 92, 190)


def draw_loss_curve(rows: Sequence[Mapping[str, str]], path: Path, title: str = "") -> None:
    """Write the loss over the steps as a PNG of 900 x 500: each value, and a running mean over it.

    Args:
        rows: with "step" and "loss"; values that are not finite are left out.
    """
    pairs = [(float(row["step"]), float(row["loss"])) for row in rows if row.get("loss")]
    points = np.array([pair for pair in pairs if math.isfinite(pair[1])]).reshape(-1, 2)
    image = Image.new("RGB", (_SIZE[0] * _SCALE, _SIZE[1] * _SCALE), "white")
    draw = ImageDraw.Draw(image)
    _text(draw, (_LEFT, 16), f"{title}: loss" if title else "loss", 18)
    if len(points):
        _plot(draw, points)
    else:
        _text(draw, (_LEFT, 240), "no finite loss yet", 16)
    with atomic_path(path) as part:
        image.resize(_SIZE, Image.Resampling.LANCZOS).save(part, format="PNG")


def _plot(draw: ImageDraw.ImageDraw, points: np.ndarray) -> None:
    steps, losses = points[:, 0], points[:, 1]
    smooth = _running_mean(losses)
    low, high, logarithmic = _range(losses, smooth)
    last = max(steps[-1], 1.0)

    def place(step: float, loss: float) -> tuple[float, float]:
        loss = min(max(loss, low), high)
        share = math.log(loss / low) / math.log(high / low) if logarithmic else (loss - low) / (high - low)
        return _LEFT + step / last * (_RIGHT - _LEFT), _BOTTOM - share * (_BOTTOM - _TOP)

    for value in _log_ticks(low, high) if logarithmic else _ticks(low, high):
        _, y = place(0, value)
        _line(draw, [(_LEFT, y), (_RIGHT, y)], _GRID, 1)
        _text(draw, (_LEFT - 10, y), f"{value:.6g}", 14, anchor="rm")
    for value in _ticks(0, last):
        if value == round(value):
            x, _ = place(value, high)
            _line(draw, [(x, _BOTTOM), (x, _BOTTOM + 5)], _INK, 1)
            _text(draw, (x, _BOTTOM + 10), f"{value:,.0f}", 14, anchor="ma")
    _line(draw, [(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], _INK, 1)
    for values, color, width in ((losses, _RAW, 1), (smooth, _SMOOTH, 2)):
        _line(draw, [place(*pair) for pair in _thinned(steps, values)], color, width)
    _text(draw, (_RIGHT, 18), f"step {steps[-1]:,.0f}: {smooth[-1]:.4g}", 16, anchor="ra")


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Over a thirtieth of the run, or five values, around each."""
    half = max(min(5, len(values) // 5), len(values) // 30) // 2
    total = np.concatenate([[0.0], values.cumsum()])
    at = np.arange(len(values))
    starts, ends = np.maximum(0, at - half), np.minimum(len(values), at + half + 1)
    return (total[ends] - total[starts]) / (ends - starts)


def _thinned(steps: np.ndarray, values: np.ndarray, most: int = 1000) -> list[tuple[float, float]]:
    """The points, or the least and the largest of each of `most` parts of the run, so that no spike is lost."""
    if len(values) <= 2 * most:
        return list(zip(steps.tolist(), values.tolist(), strict=True))
    kept = set()
    for part in np.array_split(np.arange(len(values)), most):
        kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return [(float(steps[index]), float(values[index])) for index in sorted(kept)]


def _range(losses: np.ndarray, smooth: np.ndarray) -> tuple[float, float, bool]:
    """What the axis shows: all of the mean, and all values but the 1 % that stand out; whether it is logarithmic."""
    low, high = float(min(losses.min(), smooth.min())), float(max(np.quantile(losses, 0.99), smooth.max()))
    if low > 0 and high / low > 8:
        margin = (high / low) ** 0.04
        return low / margin, high * margin, True
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin, False


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(step * index, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Some round numbers for each power of ten, or only some powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    every = math.ceil(len(powers) / 8)
    return [f * 10.0**power for power in powers[::every] for f in factors if low <= f * 10.0**power <= high]


def _line(
    draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], color: tuple[int, int, int], width: int
) -> None:
    scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
    if len(scaled) == 1:  # a run with one row so far
        (x, y), radius = scaled[0], 2 * _SCALE
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    draw.line(scaled, fill=color, width=width * _SCALE, joint="curve")


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str = "la") -> None:
    font = ImageFont.load_default(size * _SCALE)
    draw.text((at[0] * _SCALE, at[1] * _SCALE), text, fill=_INK, font=font, anchor=anchor)
