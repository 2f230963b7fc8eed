"""Between IMAGE ([B,H,W,C], 0 to 1) and pixel LATENT ([B,C,H,W], -1 to 1)."""

from __future__ import annotations

import math

import comfy.model_management as mm
import comfy.utils
import torch
from torch import Tensor

from ...pixeldit_core.families import PIXELDIT, Family
from ...pixeldit_core.sampling import check_finite, check_input


def receive(image: Tensor, name: str) -> Tensor:
    """An IMAGE or MASK of any node, at the input of that name, as float32 on the CPU, where ours are made.

    In half precision (--fp16-intermediates, and what some nodes give) the 256 levels of an image file lie a little
    beside themselves, and a saved PNG would have half of them one too dark: they are put back.

    Raises:
        ValueError: NaN or infinity in it.
    """
    check_input(image, name)
    plain = image.to("cpu", torch.float32)
    return plain if image.dtype.itemsize > 2 or not image.is_floating_point() else (plain * 255).round() / 255


def hand_out(tensor: Tensor) -> Tensor:
    """A result where ComfyUI keeps those of all nodes: with --gpu-only on the GPU. Always float32."""
    return tensor.to(mm.intermediate_device(), torch.float32)


def to_image(samples: Tensor, family: Family = PIXELDIT, convention: str = "standard") -> Tensor:
    """Pixel latent of color or gray -> IMAGE (RGB) in steps of 1/255, rounded: a saved PNG has exactly these values.

    Families differ only in how they round ties between two levels, and in the "reference" convention.

    Raises:
        ValueError: not pixels, or not finite.
    """
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        raise ValueError(
            f"this latent has shape {list(samples.shape)}; pixels have 3 channels (gray ones 1) at full size. It comes "
            "from a model with a VAE: decode it with VAE Decode."
        )
    samples = samples.cpu()
    check_finite(samples)
    return to_rgb(family.rounding(convention)(samples).movedim(1, -1).float() / 255)


ALPHA = "the image has transparency, which the model does not support: it is dropped"


def to_rgb(image: Tensor) -> Tensor:
    """IMAGE of three channels: transparency is dropped, gray becomes color."""
    return image.expand(*image.shape[:-1], 3) if image.shape[-1] == 1 else image[..., :3]


def to_channels(image: Tensor, channels: int) -> Tensor:
    """IMAGE with the channels that a model has: RGB, or for one channel its luma (ITU-R 601-2, as Pillow).

    Gray pixels keep their value: a sum of weighted channels may lie a little below it, and a saved PNG would have a
    level less.
    """
    image = to_rgb(image)
    if channels != 1:
        return image
    gray = image[..., :1]
    luma = (image * image.new_tensor(_LUMA)).sum(dim=-1, keepdim=True)
    return torch.where((image == gray).all(dim=-1, keepdim=True), gray, luma)


_LUMA = (0.299, 0.587, 0.114)


def empty_latent(count: int, height: int, width: int) -> Tensor:
    """Zeros [count, 3, height, width]: middle gray."""
    return torch.zeros(count, 3, height, width, device=mm.intermediate_device())


def to_latent(image: Tensor) -> Tensor:
    """IMAGE -> pixel latent of as many channels."""
    return (image * 2 - 1).movedim(-1, 1).contiguous()


def to_mask(mask: Tensor, image: Tensor) -> Tensor:
    """MASK [B, H, W] or [H, W] -> [B, H, W, 1], scaled to the size of the image.

    Raises:
        ValueError: it is black everywhere, or not of the image's proportions.
    """
    mask = mask.reshape(-1, *mask.shape[-2:], 1)
    (height, width), (rows, columns) = image.shape[1:3], mask.shape[1:3]
    if not mask.any():
        raise ValueError(
            "the mask is black everywhere, so nothing would be generated: white = generate, black = keep. Paint it in "
            "the mask editor (an image without transparency has an empty mask), or disconnect the mask."
        )
    if abs(math.log(rows * width / (columns * height))) > 0.02:
        raise ValueError(
            f"the mask is {columns} x {rows} and the image {width} x {height} (width x height): their aspect "
            "ratios differ. Connect the mask of this image, or crop and scale both alike."
        )
    return fit(mask, width, height)


def fit(image: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] scaled to cover width x height and cropped around its center; unchanged if it has that size."""
    if image.shape[1:3] == (height, width):
        return image
    # lanczos overshoots, which a mask must not
    method = "bilinear" if image.shape[-1] == 1 else "lanczos"
    return comfy.utils.common_upscale(image.movedim(-1, 1), width, height, method, "center").movedim(1, -1)


def repeat(images: Tensor, count: int) -> Tensor:
    """So many images, from the first one again."""
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


def composite(generated: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """[B, H, W, C]: the image's pixels, exactly, where the mask [1 or B, H, W, 1] is 0, else the generated ones."""
    mask = repeat(mask, len(generated))
    return generated.where(mask > 0, image.expand_as(generated))
