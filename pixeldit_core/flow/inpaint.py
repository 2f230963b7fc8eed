"""Inpainting along the flow: what lies outside the mask follows the known image's own path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def inpaint_velocity(
    velocity: Callable[[Tensor, float], Tensor], image: Tensor, noise: Tensor, mask: Tensor
) -> Callable[[Tensor, float], Tensor]:
    """A velocity function that changes `image` only where `mask` is 1.

    Args:
        velocity: (x, t) -> dx/dt of the model.
        image: state [B, C, H, W] to keep where the mask is 0.
        noise: the state at t = 0 that belongs to it.
        mask: [B, 1, H, W], 1 = generate, 0 = keep; values between blend.
    """

    def masked(x: Tensor, t: float) -> Tensor:
        x_in = torch.lerp(torch.lerp(noise, image, t), x, mask)
        estimate = torch.lerp(image, x_in + (1 - t) * velocity(x_in, t), mask)
        return (estimate - x) / (1 - t)

    return masked
