"""The loss curve as an image, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic import atomic_path

_SIZE = (900, 500)
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 50, 870, 450  # of the plot, in pixels
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
    _text(draw, (_LEFT, 16), title or "loss", 18)
    if len(points):
        _plot(draw, points)
    else:
        _text(draw, (_LEFT, 240), "no finite loss yet", 16)
    with atomic_path(path) as part:
        image.resize(_SIZE, Image.Resampling.LANCZOS).save(part, format="PNG")


def _plot(draw: ImageDraw.ImageDraw, points: np.ndarray) -> None:
    steps, losses = points[:, 0], points[:, 1]
    smooth = _running_mean(losses)
    low, high = _range(losses, smooth)
    logarithmic = low > 0 and high / low > 8
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def place(step: float, loss: float) -> tuple[float, float]:
        share = (math.log(loss / low) / math.log(high / low)) if logarithmic else (loss - low) / (high - low)
        across = (step - first) / (last - first)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - min(max(share, 0.0), 1.02) * (_BOTTOM - _TOP)

    for value in _log_ticks(low, high) if logarithmic else _ticks(low, high):
        _, y = place(first, value)
        _line(draw, [(_LEFT, y), (_RIGHT, y)], _GRID, 1)
        _text(draw, (_LEFT - 10, y - 9), f"{value:.4g}", 14, anchor="ra")
    for value in _ticks(first, last):
        x, _ = place(value, high)
        _line(draw, [(x, _BOTTOM), (x, _BOTTOM + 5)], _INK, 1)
        _text(draw, (x, _BOTTOM + 10), f"{value:,.0f}", 14, anchor="ma")
    _line(draw, [(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], _INK, 1)
    keep = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 2000)).astype(int))
    lowest = low if logarithmic else -math.inf
    for values, color, width in ((losses, _RAW, 1), (smooth, _SMOOTH, 2)):
        _line(draw, [place(float(steps[i]), max(float(values[i]), lowest)) for i in keep], color, width)
    _text(draw, (_RIGHT, 18), f"step {steps[-1]:,.0f}: {smooth[-1]:.4f}", 16, anchor="ra")


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Over a window of a fortieth of the run."""
    width = max(1, len(values) // 40)
    total = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (total[ends] - total[starts]) / (ends - starts)


def _range(losses: np.ndarray, smooth: np.ndarray) -> tuple[float, float]:
    """What the axis shows: all of the mean, and all values but the one percent that stand out."""
    low, high = min(losses.min(), smooth.min()), max(np.quantile(losses, 0.99), smooth.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - margin if low - margin > 0 or low <= 0 else low * 0.9), float(high + margin)


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(step * index, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        value for power in powers for value in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= value <= high
    ]


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
