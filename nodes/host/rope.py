"""Positions of patches as other nodes ask for them (ScaleROPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...pixeldit_core.layers.rope import Move

_AXES = ("y", "x")  # of rows, of columns


def position_move(transformer_options: Mapping[str, Any]) -> Move | None:
    """How `rope_options` move the rows and columns, as in ComfyUI's own PixelDiT: position * scale + shift.

    A PixelDiT has no axis of time: scale_t and shift_t have no effect.
    """
    options = transformer_options.get("rope_options")
    if not options:
        return None

    def move(positions: Tensor, axis: int) -> Tensor:
        name = _AXES[axis]
        return positions * options.get(f"scale_{name}", 1.0) + options.get(f"shift_{name}", 0.0)

    return move
