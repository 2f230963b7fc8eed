"""Between a model's range and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .model import Model


def to_uint8(model: Model, x: Tensor, convention: str = "standard") -> Tensor:
    """State [B, C, H, W] -> uint8 [B, H, W, C] on the CPU, rounded to the nearest level.

    With `convention="reference"` as the model's authors do; that is the same but for PixelHDM, whose authors cut.
    """
    return model.family.rounding(convention)(to_signed(model.params, x)).movedim(1, -1).contiguous().cpu()


def to_signed(params: Any, x: Tensor) -> Tensor:
    """State -> pixels in [-1, 1]; the same for most models, others are trained on another mean and spread."""
    if _is_signed(params):
        return x
    mean, std = _statistics(params, x)
    return (x * std + mean) * 2 - 1


def from_signed(params: Any, x: Tensor) -> Tensor:
    """The inverse of `to_signed`."""
    if _is_signed(params):
        return x
    mean, std = _statistics(params, x)
    return ((x + 1) / 2 - mean) / std


def _is_signed(params: Any) -> bool:
    return {*params.image_mean, *params.image_std} == {0.5}


def _statistics(params: Any, x: Tensor) -> Iterator[Tensor]:
    """Mean and spread of the pictures a model was trained on, [C, 1, 1]."""
    return (x.new_tensor(value)[:, None, None] for value in (params.image_mean, params.image_std))


def from_image(model: Model, image: Any) -> Tensor:
    """Picture(s) -> state, float32 [B, C, H, W].

    Args:
        image: a PIL image, uint8 [B, H, W, C] or [H, W, C], or floats of 0 to 1 in the same shapes (tensor or array).

    Raises:
        ValueError: another number of channels than the model has (transparency is for the caller to drop).
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
    """uint8 [B, H, W, C] with one or three channels -> pictures."""
    return [Image.fromarray(picture.squeeze(-1).numpy()) for picture in pixels]


def contact_sheet(pixels: Tensor, columns: int | None = None, *, gap: int = 4, scale: int = 1) -> Image.Image:
    """uint8 [B, H, W, C] -> one picture, rows filled from the left.

    Args:
        columns: None = as square as it goes.
        gap: white pixels between pictures.
        scale: whole-number enlargement without smoothing, for small pictures.
    """
    count, height, width = pixels.shape[:3]
    columns = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // columns)
    height, width = height * scale, width * scale
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, picture in enumerate(to_pil(pixels)):
        row, column = divmod(index, columns)
        place = (gap + column * (width + gap), gap + row * (height + gap))
        sheet.paste(picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST), place)
    return sheet
