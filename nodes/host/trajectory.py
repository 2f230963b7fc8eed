"""The trajectory from noise to image, as frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...pixeldit_core.images import image_grid


class Trajectory:
    """States and estimates of the image at `frames` moments, evenly spaced from the noise (0) to the end (`steps`)."""

    def __init__(self, frames: int, steps: int) -> None:
        self.steps = steps
        # from the end: a single frame is the finished image
        self.moments = sorted({round(moment) for moment in torch.linspace(steps, 0, min(frames, steps + 1)).tolist()})
        self.states: dict[int, Tensor] = {}
        self.estimates: dict[int, Tensor] = {}

    def begin(self, x: Tensor) -> None:
        """Keep the initial state."""
        self._keep(self.states, 0, x)

    def add(self, step: int, estimate: Tensor, x: Tensor) -> None:
        """Keep the estimate of the image at the start of a step, and the state at its end."""
        self._keep(self.estimates, step, estimate)
        self._keep(self.states, step + 1, x)

    def _keep(self, kept: dict[int, Tensor], moment: int, x: Tensor) -> None:
        if moment in self.moments:
            kept[moment] = x.detach().to("cpu", torch.float32, copy=True)

    def images(self, finish: Callable[[Tensor], Tensor], final: Tensor) -> tuple[Tensor, Tensor]:
        """IMAGE batches of states and of estimates, one frame each moment; both end with the finished images.

        Args:
            finish: from a state to IMAGE.
            final: IMAGE [B, H, W, C]; a batch shares a frame.
        """
        batches = []
        for kept in (self.states, self.estimates):
            frames = [finish(kept[moment]) for moment in self.moments if moment in kept and moment < self.steps]
            batches.append(torch.stack([image_grid(frame) for frame in [*frames, final]]))
        return batches[0], batches[1]
