"""FlowEdit in ComfyUI's sampling: memory, hooks, wrappers, previews and interrupt as for every sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor

from ...pixeldit_core.editing import flow_edit
from .guidance import TIME
from .noise_scale import scale_of

_BRANCH = "pixeldit_edit_branch"  # of model_options
_LEAST_SIGMA = 1e-5


@dataclass(frozen=True)
class EditSettings:
    """The widgets of the node, by their names; `start` and `end` are times of the flow."""

    seed: int
    steps: int
    cfg: float
    start: float
    end: float
    source_cfg: float
    strength: float
    localized: bool
    averages: int
    final_steps: int


class EditGuider(comfy.samplers.CFGGuider):
    """Guides a prediction for the target, or where the options of a call say so, for the source."""

    def set_edit(self, target: list, negative: list, source: list, settings: EditSettings) -> None:
        self.inner_set_conds({"positive": target, "negative": negative, "source": source})
        self.set_cfg(settings.cfg)
        self.source_cfg = settings.source_cfg

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        options, positive, cfg = model_options or {}, "positive", self.cfg
        if options.get(_BRANCH) == "source":
            positive, cfg = "source", self.source_cfg
        conds = (self.conds.get("negative"), self.conds.get(positive))
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, cfg, model_options=options, seed=seed
        )


class EditSampler(comfy.samplers.Sampler):
    """Moves an image along the difference of what a guider predicts for the target and for the source."""

    def __init__(self, settings: EditSettings, scale: float) -> None:
        self.settings, self.scale = settings, scale

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        settings, rows = self.settings, noise.new_ones(len(noise))
        total = settings.steps + settings.final_steps

        def branch(name: str) -> Callable[[Tensor, float], tuple[Tensor, Tensor]]:
            def velocities(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
                found: dict[str, Tensor] = {}
                options = _watched(extra_args["model_options"], found) | {TIME: t, _BRANCH: name}
                sigma = max(1.0 - t, _LEAST_SIGMA)
                denoised = model_wrap(x, sigma * rows, **{**extra_args, "model_options": options})
                conditional = found.get("cond_denoised", denoised)
                return (denoised - x) / sigma, (conditional - x) / sigma

            return velocities

        def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
            if callback is not None:
                callback(i, x, x, total)

        return flow_edit(
            branch("target"),
            branch("source"),
            latent_image.to(noise),
            self.scale * noise,
            steps=settings.steps,
            averages=settings.averages,
            interval=(settings.start, settings.end),
            strength=settings.strength,
            localized=settings.localized,
            terminal_steps=settings.final_steps,
            on_step=on_step,
        )


def _watched(model_options: dict[str, Any], found: dict[str, Tensor]) -> dict[str, Any]:
    """Options that also keep the conditional prediction of a call."""

    def keep(arguments: dict[str, Any]) -> Tensor:
        found["cond_denoised"] = arguments["cond_denoised"]
        return arguments["denoised"]

    functions = [keep, *model_options.get("sampler_post_cfg_function", [])]
    return {**model_options, "sampler_post_cfg_function": functions}


def edit(model: Any, latent: Tensor, source: list, target: list, negative: list, settings: EditSettings) -> Tensor:
    """The edited image as a LATENT [B, C, H, W].

    Args:
        latent: the image, [B, C, H, W] in [-1, 1].
        source, target, negative: CONDITIONING of what the image is, of what it shall become, and for guidance.

    Raises:
        ValueError: an interval or count that does not fit.
    """
    preview = latent_preview.prepare_callback(model, settings.steps + settings.final_steps)
    guider = EditGuider(model)
    guider.set_edit(target, negative, source, settings)
    sigmas = 1.0 - latent.new_tensor([settings.start, settings.end])
    return guider.sample(
        comfy.sample.prepare_noise(latent, settings.seed),
        latent,
        EditSampler(settings, scale_of(model)),
        sigmas,
        callback=preview,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
