"""Text that several commands write."""

from __future__ import annotations

from typing import Any

from ..model import Model
from ..settings import SamplingSettings


def describe_settings(settings: SamplingSettings) -> str:
    """Settings in one line."""
    low, high = settings.cfg_interval
    size = f", {settings.size[1]} x {settings.size[0]} pixels" if settings.size else ""
    return (
        f"{settings.steps} steps, {settings.solver}, cfg {settings.cfg:g} for t in {low:g} to {high:g}, "
        f"timeshift {settings.timeshift:g}{size}"
    )


def describe_compiled(model: Model) -> dict[str, str]:
    """A row for a model that was compiled: how long that took, and a call after it."""
    return {"compiled": model.compiled.describe()} if model.compiled else {}


def table(rows: dict[str, Any]) -> str:
    """Lines of a name and a value."""
    width = max(map(len, rows)) + 2
    return "".join(f"  {name.ljust(width)}{value}\n" for name, value in rows.items())


def encoder_row(inside: bool | None) -> dict[str, str]:
    """A row for a network that has a place for an encoder (None = it has none): whether that is in the file."""
    return {} if inside is None else {"encoder": "inside" if inside else "not inside: a file of its own"}
