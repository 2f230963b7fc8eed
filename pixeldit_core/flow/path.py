"""The straight path between noise and image, and what a network predicts of it.

t is 0 at the noise and 1 at the image, x_t = t * image + (1 - t) * noise, and the velocity is dx/dt = image - noise
(paper, section 3.1). A `FlowPath` is one network's view of that path; sampling and training read the same record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["velocity", "negative_velocity", "image"]


@dataclass(frozen=True)
class FlowPath:
    """What a network is given and what it predicts, as data.

    The defaults are those of a network that speaks the common language: it takes t and predicts dx/dt.
    """

    predicts: Prediction = "velocity"
    time_scale: float = 1.0  #                          of the network's own time
    counts_noise: bool = False  #                       its time grows with the noise: time_scale * (1 - t)
    time_range: tuple[float, float] = (0.0, 1.0)  #     times t it was trained on; others are clamped
    noise_scale: float = 1.0  #                         std of the noise at t = 0
    min_noise_level: float = 1e-5  #                    lower bound of the divisor 1 - t, for image predictions

    def network_time(self, t: Tensor) -> Tensor:
        """t [B] -> the network's own time [B]."""
        if self.time_range != (0.0, 1.0):
            t = t.clamp(*self.time_range)
        if self.counts_noise:
            t = 1.0 - t
        return t if self.time_scale == 1 else self.time_scale * t

    def interpolate(self, image: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of image and unit noise [B, C, H, W] at times t [B]."""
        return torch.lerp(self._scaled(noise), image, _per_row(t, image))

    def target(self, image: Tensor, noise: Tensor) -> Tensor:
        """What the network should predict for image and unit noise [B, C, H, W]."""
        if self.predicts == "image":
            return image
        difference = image - self._scaled(noise)
        return -difference if self.predicts == "negative_velocity" else difference

    def velocity(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """dx/dt [B, C, H, W] from what the network predicted for the state x at times t [B]."""
        if self.predicts == "image":
            return (prediction - x) / _per_row((1 - t).clamp(min=self.min_noise_level), x)
        return -prediction if self.predicts == "negative_velocity" else prediction

    def _scaled(self, noise: Tensor) -> Tensor:
        return noise if self.noise_scale == 1 else self.noise_scale * noise


def _per_row(t: Tensor, x: Tensor) -> Tensor:
    """[B] in a shape that broadcasts over the rows of x."""
    return t.view(-1, *[1] * (x.ndim - 1))
