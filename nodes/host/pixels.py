"""Between IMAGE ([B,H,W,C], 0 to 1) and pixel LATENT ([B,C,H,W], -1 to 1)."""

from __future__ import annotations

import logging

import comfy.utils
from torch import Tensor

from ...pixeldit_core.families import PIXELDIT
from ...pixeldit_core.flow.sample import check_finite

log = logging.getLogger(__name__)


def to_image(samples: Tensor) -> Tensor:
    """Pixel latent -> IMAGE in steps of 1/255, rounded as published: a saved PNG is then the authors' PNG.

    Raises:
        ValueError: not pixels, or not finite.
    """
    if samples.ndim != 4 or samples.shape[1] != 3:
        raise ValueError(
            f"this latent has shape {list(samples.shape)}; pixels have 3 channels at full size. It comes from a model "
            "with a VAE: decode it with VAE Decode."
        )
    check_finite(samples)
    return PIXELDIT.to_uint8(samples.cpu()).movedim(1, -1).float() / 255


def drop_alpha(image: Tensor) -> Tensor:
    """IMAGE without transparency, which is said once in the log."""
    if image.shape[-1] != 4:
        return image
    log.warning("the image has transparency, which PixelDiT does not know: it is dropped")
    return image[..., :3]


def to_latent(image: Tensor) -> Tensor:
    """IMAGE -> pixel latent; transparency is dropped, grey becomes colour."""
    image = drop_alpha(image)
    if image.shape[-1] == 1:
        image = image.expand(*image.shape[:-1], 3)
    return (image * 2 - 1).movedim(-1, 1).contiguous()


def fit(image: Tensor, width: int, height: int) -> Tensor:
    """[B, H, W, C] scaled to cover width x height and cropped around its centre; unchanged if it has that size."""
    if image.shape[1:3] == (height, width):
        return image
    # lanczos of the host is for pictures; a mask must not overshoot
    method = "bilinear" if image.shape[-1] == 1 else "lanczos"
    return comfy.utils.common_upscale(image.movedim(-1, 1), width, height, method, "center").movedim(1, -1)


def keep_outside(made: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is 0, the image's own pixels, exactly."""
    mask = mask.movedim(1, -1)  # [B, 1, H, W]
    if len(mask) not in (1, len(made)):
        mask = mask.repeat(-(-len(made) // len(mask)), 1, 1, 1)[: len(made)]
    return made.where(mask > 0, image.expand_as(made))
