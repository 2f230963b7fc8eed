"""Sizes that are not whole patches."""

from __future__ import annotations

from typing import Any

import comfy.ldm.common_dit
from torch import Tensor

from ...pixeldit_core.families import Family
from ...pixeldit_core.sizes import Size


def padded_size(family: Family, params: Any, height: int, width: int) -> Size:
    """The next size that a network takes, of whole patches and at least one."""
    multiple, (least, _) = family.size_multiple(params), family.size_limits(params)
    return max(least[0], -(-height // multiple) * multiple), max(least[1], -(-width // multiple) * multiple)


def pad(x: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] continued from its other side, right and bottom, up to a size: as ComfyUI does for its models.

    ComfyUI's own function refuses to go around more than once, as an image or an area needs that is smaller than half
    a patch.
    """
    (height, width), (rows, columns) = x.shape[-2:], size
    if rows <= 2 * height and columns <= 2 * width:
        return comfy.ldm.common_dit.pad_to_patch_size(x, size)
    return x.repeat(1, 1, -(-rows // height), -(-columns // width))[..., :rows, :columns]
