"""Text that several commands write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..settings import SamplingSettings


def describe_settings(settings: SamplingSettings) -> str:
    """Settings in one line."""
    low, high = settings.cfg_interval
    size = f", {settings.size[1]} x {settings.size[0]} pixels" if settings.size else ""
    return (
        f"{settings.steps} steps, {settings.solver}, cfg {settings.cfg:g} for t in {low:g} to {high:g}, "
        f"timeshift {settings.timeshift:g}{size}"
    )


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32"."""
    return str(dtype).removeprefix("torch.")


def abbreviated(entries: Sequence[str], shown: int = 8) -> str:
    """The first few, and how many more."""
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return ", ".join(entries[:shown]) + more


def table(rows: dict[str, Any]) -> str:
    """Lines of a name and a value."""
    width = max(map(len, rows)) + 2
    return "".join(f"  {name.ljust(width)}{value}\n" for name, value in rows.items())
