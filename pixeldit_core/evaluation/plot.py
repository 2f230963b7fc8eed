"""The scores of a sweep as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..extras import require

_SIZE = (8.0, 5.0)  # inches
_DPI = 120


def plot_sweep(rows: Sequence[Mapping[str, Any]], axes: Mapping[str, Sequence[Any]], path: Path, title: str) -> None:
    """Draw FID against the axis with the most values, a line for each combination of the others.

    Args:
        rows: with a value for each axis, and "fid".
    """
    across = max(axes, key=lambda axis: (len(axes[axis]), axis == "cfg"))
    others = [axis for axis in axes if axis != across and len(axes[axis]) > 1]
    figure = require("matplotlib.figure").Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    plot = figure.subplots()
    for label, line in _lines(rows, others).items():
        plot.plot([row[across] for row in line], [row["fid"] for row in line], marker="o", markersize=4, label=label)
    best = min(rows, key=lambda row: row["fid"])
    plot.annotate(
        f"{best['fid']:.4g}", (best[across], best["fid"]), xytext=(0, -14), textcoords="offset points", ha="center"
    )
    plot.set(xlabel=across, ylabel="FID", title=title)
    plot.margins(y=0.12)
    plot.grid(alpha=0.3)
    if others:
        plot.legend(fontsize="small", ncols=1 + len(_lines(rows, others)) // 12)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        figure.savefig(part, format="png")


def _lines(rows: Sequence[Mapping[str, Any]], others: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by the values of the other axes."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{axis} {row[axis]}" for axis in others), []).append(row)
    return lines
