"""Pixels where ComfyUI expects latents."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import torch
from torch import Tensor

from ...pixeldit_core.images import from_signed, to_signed


class PixelFormat(comfy.latent_formats.ChromaRadiance):
    """Pixels at full size in [-1, 1], with the channels of a model; its mean and std are applied inside of it."""

    def __init__(self, params: Any) -> None:
        self.params = params
        self.latent_channels = params.in_channels
        std = torch.tensor(params.image_std) * 2
        self.latent_rgb_factors = (torch.diag(std) if len(std) == 3 else std[:, None].expand(-1, 3)).tolist()
        mean = torch.tensor(params.image_mean) * 2 - 1
        self.latent_rgb_factors_bias = mean.expand(3).tolist()

    def process_in(self, latent: Tensor) -> Tensor:
        return from_signed(self.params, latent)

    def process_out(self, latent: Tensor) -> Tensor:
        return to_signed(self.params, latent)
