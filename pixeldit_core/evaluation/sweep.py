"""A grid of sampling settings: its points, and which of them make the same images."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..flow.guidance import check_interval
from ..flow.solvers import SOLVERS
from ..model import Model
from ..sampling import time_grid
from ..settings import SamplingSettings

Value = float | int | str
Point = Mapping[str, Value]

EMA = "ema"  # length of a power-function average of a training run
_KINDS: dict[str, type] = {
    EMA: float, "solver": str, "steps": int, "timeshift": float, "interval_start": float, "interval_end": float,
    "cfg": float,
}  # fmt: skip
_MOST = 10_000  # points


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Values by key, of "cfg=2:4:0.25" (from, to, step; both ends included) and "interval_end=0.8,0.9,1".

    Keys are ordered so that what takes most to change, the weights, changes least often.

    Raises:
        ValueError: an unknown or repeated key, values that are not of its kind, or too many.
    """
    axes: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if key not in _KINDS or not equals:
            raise ValueError(f'"{text}" is no axis of a sweep. Write KEY=VALUES with one of {", ".join(_KINDS)}.')
        if key in axes:
            raise ValueError(f"{key} is there twice; write all its values in one list.")
        axes[key] = _parse_values(key, values)
    count = math.prod(map(len, axes.values()))
    if count > _MOST:
        raise ValueError(f"the sweep has {count:,} points; at most {_MOST:,} are allowed. Take larger steps.")
    return {key: axes[key] for key in _KINDS if key in axes}


def _parse_values(key: str, text: str) -> tuple[Value, ...]:
    kind = _KINDS[key]
    try:
        if ":" in text:
            start, end, step = (float(part) for part in text.split(":"))
            if not (step > 0 and end >= start and (end - start) / step < _MOST):
                raise ValueError(f"from {start:g} to {end:g} by {step:g}")
            length = math.floor((end - start) / step + 1e-6) + 1
            values = [round(start + index * step, 10) for index in range(length)]
        else:
            values = [part.strip() for part in text.split(",")]
        converted = tuple(dict.fromkeys(_convert(kind, value) for value in values))
    except ValueError as error:
        raise ValueError(
            f'"{key}={text}" is not readable ({error}). Write a list such as {_example(key)}, or FROM:TO:STEP.'
        ) from error
    return converted


def _convert(kind: type, value: Value) -> Value:
    if kind is str:
        if value not in SOLVERS:
            raise ValueError(f"there are the solvers {', '.join(SOLVERS)}")
        return value
    number = float(value)
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise ValueError(f"{value} is not a {'whole ' if kind is int else 'finite '}number")
    return kind(number)


def _example(key: str) -> str:
    return {"solver": "solver=ab2,heun", "steps": "steps=25,50,100"}.get(key, f"{key}=0.5,1")


def points(axes: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """Every combination; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def point_name(point: Point) -> str:
    """A folder name such as "cfg=2.25,interval_end=0.8"."""
    texts = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.items())
    return re.sub(r"[^\w.,=+-]", "_", ",".join(texts))


def settings_at(settings: SamplingSettings, point: Point) -> SamplingSettings:
    """Settings with a point's values over them.

    Raises:
        ValueError: values that no sampling can have.
    """
    start, end = settings.cfg_interval
    interval = check_interval((float(point.get("interval_start", start)), float(point.get("interval_end", end))))
    given = {key: value for key, value in point.items() if key in ("cfg", "steps", "timeshift", "solver")}
    return dataclasses.replace(settings, cfg_interval=interval, **given)


def image_key(model: Model, settings: SamplingSettings, convention: str) -> tuple[Any, ...]:
    """Equal for settings that make the same images: guidance of 1, or at the same times of the grid, is the same."""
    grid = time_grid(model, settings.steps, settings.timeshift, convention=convention)
    guided = model.family.convention(convention).guided
    times = tuple(guided(float(t), settings.cfg_interval, settings.cfg) for t in grid)
    if settings.cfg == 1:
        times = (False,) * len(times)
    cfg = settings.cfg if any(times) else 1.0
    return settings.steps, settings.solver, settings.timeshift, settings.size, cfg, times


def markdown(rows: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> str:
    """A table of the scores, the least FID in bold."""
    names = [name for name in ("fid", "sfid", "inception_score", "precision", "recall", "accuracy")
             if any(row[name] is not None for row in rows)]  # fmt: skip
    titles = {"fid": "FID", "sfid": "sFID", "inception_score": "Inception Score"}
    best = min(range(len(rows)), key=lambda index: rows[index]["fid"])
    lines = ["| " + " | ".join([*axes, *(titles.get(name, name) for name in names), "images"]) + " |"]
    lines.append("|---" * (len(axes) + len(names) + 1) + "|")
    for index, row in enumerate(rows):
        values = [f"{row[axis]:g}" if isinstance(row[axis], float) else str(row[axis]) for axis in axes]
        scores = ["" if row[name] is None else f"{row[name]:.4g}" for name in names]
        if index == best:
            scores[0] = f"**{scores[0]}**"
        same = f"those of {row['same_as']}" if row["same_as"] else "own"
        lines.append("| " + " | ".join([*values, *scores, same]) + " |")
    return "\n".join(lines) + "\n"
