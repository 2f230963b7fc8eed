"""The noise of a family in ComfyUI's sampling: its std at sigma 1, which is 2 for PixelDiT2 at 512 x 512.

Newer versions of ComfyUI scale noise themselves (`noise_scale` of a sampling object), older ones do not.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import comfy.model_sampling
import comfy.patcher_extension
from torch import Tensor

SETTING = "noise_scale"  # of sampling_settings, and the attribute of a sampling object
IN_COMFYUI = hasattr(comfy.model_sampling.ModelSamplingDiscreteFlow, "set_noise_scale")
_KEY = "pixeldit_noise_scale"


class _Scaling:
    """Mixed into sampling objects of versions that do not scale noise."""

    noise_scale: float

    def noise_scaling(self, sigma: Any, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        return super().noise_scaling(sigma, self.noise_scale * noise, latent_image, max_denoise)  # pyright: ignore


def keep_scale(sampling: Any, scale: float) -> None:
    """Give a sampling object, such as that of a ModelSampling node, the scale of a MODEL; one of its own stays."""
    if scale == 1 or hasattr(sampling, SETTING) or not isinstance(sampling, comfy.model_sampling.CONST):
        return
    sampling.noise_scale = scale
    if not IN_COMFYUI:
        sampling.__class__ = _scaling(type(sampling))


@functools.cache
def _scaling(kind: type) -> type:
    return type(kind.__name__, (_Scaling, kind), {})


def scale_of(model: Any) -> float:
    """The noise scale of a MODEL, of this pack or another."""
    config = getattr(model.model, "model_config", None)
    own = (getattr(config, "sampling_settings", None) or {}).get(SETTING, 1.0)
    return float(getattr(model.get_model_object("model_sampling"), SETTING, own))


def with_scaled_steps(patcher: Any) -> None:
    """Let samplers that add noise in their steps (ancestral, SDE) scale it, where ComfyUI does not do so itself."""
    if not IN_COMFYUI and scale_of(patcher) != 1:
        kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
        patcher.add_wrapper_with_key(kind, _KEY, _sampler_sample)


def _sampler_sample(executor: Any, model_wrap: Any, *arguments: Any, **options: Any) -> Any:
    sampler, scale = executor.class_obj, getattr(model_wrap.inner_model.model_sampling, SETTING, 1.0)
    function = getattr(sampler, "sampler_function", None)
    known = inspect.signature(function).parameters if function else {}
    if "s_noise" not in known:
        return executor(model_wrap, *arguments, **options)
    given = sampler.extra_options
    sampler.extra_options = {**given, "s_noise": scale * given.get("s_noise", known["s_noise"].default)}
    try:
        return executor(model_wrap, *arguments, **options)
    finally:
        sampler.extra_options = given
