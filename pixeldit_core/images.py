"""Images of a model: between its range and pixels, and grids of several."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from .atomic import atomic_path
from .model import Model


def to_uint8(model: Model, x: Tensor, convention: str = "standard") -> Tensor:
    """State [B, C, H, W] -> uint8 [B, H, W, C] on the CPU, rounded to the nearest level.

    `convention="reference"` rounds as the original program does: the same, except that PixelHDM's truncates.

    Raises:
        ValueError: an unknown convention.
    """
    return model.family.rounding(convention)(to_signed(model.params, x)).movedim(1, -1).contiguous().cpu()


def to_signed(params: Any, x: Tensor) -> Tensor:
    """State -> pixels in [-1, 1]; the same for most models; some are trained with another mean and std."""
    if _is_signed(params):
        return x
    mean, std = _mean_std(params, x)
    return (x * std + mean) * 2 - 1


def from_signed(params: Any, x: Tensor) -> Tensor:
    """The inverse of `to_signed`."""
    if _is_signed(params):
        return x
    mean, std = _mean_std(params, x)
    return ((x + 1) / 2 - mean) / std


def _is_signed(params: Any) -> bool:
    return {*params.image_mean, *params.image_std} == {0.5}


def _mean_std(params: Any, x: Tensor) -> Iterator[Tensor]:
    """Mean and std of the images in [0, 1] that the model was trained on, [C, 1, 1]."""
    return (x.new_tensor(value)[:, None, None] for value in (params.image_mean, params.image_std))


def from_image(model: Model, image: Any) -> Tensor:
    """Image or images -> state, float32 [B, C, H, W].

    Args:
        image: a PIL image, uint8 [B, H, W, C] or [H, W, C], or floats in [0, 1] of the same shapes (tensor or array).

    Raises:
        ValueError: another number of channels than the model has (drop transparency first).
    """
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB" if model.params.in_channels == 3 else "L"))
    pixels = torch.as_tensor(image)
    if pixels.dtype == torch.uint8:
        pixels = pixels / 255
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3:
        pixels = pixels[None]
    channels = model.params.in_channels
    if pixels.ndim != 4 or pixels.shape[-1] != channels:
        raise ValueError(f"the image has shape {tuple(pixels.shape)}; expected [B, H, W, {channels}].")
    mean, std = (
        torch.tensor(value, dtype=torch.float32) for value in (model.params.image_mean, model.params.image_std)
    )
    return ((pixels.float().cpu() - mean) / std).movedim(-1, 1).contiguous()


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """uint8 [B, H, W, C] with one or three channels -> PIL images."""
    return [Image.fromarray(image.squeeze(-1).numpy()) for image in pixels]


def write_png(image: Image.Image, path: Path, values: dict[str, Any] | None = None) -> None:
    """Write a PNG file, completely or not at all, with values as JSON in its text chunk "pixeldit".

    Compressed by run lengths after PNG's filters: photographs take a third of the time of zlib's default, and 4 % more
    bytes (benchmarks/README.md).
    """
    text = PngInfo()
    if values:
        text.add_text("pixeldit", json.dumps(values))
    with atomic_path(path) as part:
        image.save(part, format="PNG", pnginfo=text, compress_type=Image.RLE)


def image_grid(images: Tensor, columns: int | None = None, *, gap: int = 0, background: float = 0) -> Tensor:
    """[B, H, W, C] -> one [H', W', C], rows filled from the left.

    Args:
        columns: None = as square as possible.
        gap: pixels between images and around them.
        background: value of gaps and empty cells.
    """
    count = len(images)
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    missing = -count % columns
    cells = F.pad(images, (0, 0, 0, gap, 0, gap, 0, missing), value=background)
    grid = rearrange(cells, "(r c) h w k -> (r h) (c w) k", c=columns)
    return F.pad(grid, (0, 0, gap, 0, gap, 0), value=background)


def contact_sheet(pixels: Tensor, columns: int | None = None, *, gap: int = 4, scale: int = 1) -> Image.Image:
    """uint8 [B, H, W, C] -> one RGB image on white, rows filled from the left.

    Args:
        columns: None = as square as possible.
        gap: white pixels between images and around them.
        scale: integer enlargement without smoothing, for small images.
    """
    enlarged = pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    (sheet,) = to_pil(image_grid(enlarged, columns, gap=gap, background=255)[None])
    return sheet.convert("RGB")
