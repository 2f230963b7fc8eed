"""A whole sampling run: ComfyUI's machinery (memory, hooks, wrappers, previews, interrupt) with the core's solvers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...pixeldit_core.flow.convention import Convention
from ...pixeldit_core.settings import SamplingSettings
from .guidance import INTERVAL, with_scale
from .noise_scale import scale_of
from .solver import make_planned_solver

OnStep = Callable[[int, Tensor, Tensor], None]  # step, estimate of the image at its start, state at its end


@dataclass(frozen=True)
class Plan:
    """How to sample: resolved settings, the convention, and the times that follow from both."""

    settings: SamplingSettings
    convention: Convention
    times: Tensor


@dataclass(frozen=True)
class Start:
    """What to sample from: LATENT and noise [B, C, H, W], and a mask [1 or B, 1, H, W], 1 = generate."""

    latent: Tensor
    noise: Tensor
    seed: int
    mask: Tensor | None = None

    def state(self, model: Any, plan: Plan) -> Tensor:
        """The state at the first time, in the model's range."""
        noise, latent = scale_of(model) * self.noise, model.model.process_latent_in(self.latent)
        return torch.lerp(noise, latent, plan.times[0].to(noise))


def draw_noise(latent: Tensor, seed: int) -> Tensor:
    """ComfyUI's noise: one generator for the batch."""
    return comfy.sample.prepare_noise(latent, seed)


def draw_unit_noise(latent: Tensor, seed: int, times: Tensor) -> Tensor:
    """Noise for an empty latent, of std 1 once ComfyUI has multiplied it by the first sigma.

    Some grids start a little after 0; their state is pure noise all the same.
    """
    return draw_noise(latent, seed) / (1.0 - times[0])


def sample(
    model: Any, positive: list, negative: list, start: Start, plan: Plan, on_step: OnStep | None = None
) -> Tensor:
    """The final state as a LATENT [B, C, H, W]; previews and progress are shown on the way."""
    settings, preview = plan.settings, latent_preview.prepare_callback(model, len(plan.times) - 1)

    def scale_at(cfg: Any, t: float) -> Any:
        return cfg if plan.convention.guided(t, settings.cfg_interval, settings.cfg) else 1.0

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        preview(step, denoised, x, total)
        if on_step is not None:
            on_step(step, denoised, x)

    guider = comfy.samplers.CFGGuider(with_scale(model, INTERVAL, scale_at))
    guider.set_conds(positive, negative)
    guider.set_cfg(settings.cfg)
    return guider.sample(
        start.noise,
        start.latent,
        make_planned_solver(settings.solver, plan.convention, settings.timeshift, plan.times),
        (1.0 - plan.times).float(),
        denoise_mask=start.mask,
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=start.seed,
    )
