"""Guidance strategies of the core as patches of a MODEL, any flow model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ...pixeldit_core.flow.guidance import cfg_function, cfg_schedule, check_interval, check_rescale, is_guided

INTERVAL = "pixeldit_cfg_interval"
RESCALE = "pixeldit_cfg_rescale"
SCHEDULE = "pixeldit_cfg_schedule"
TIME = "pixeldit_time"  # of model_options: the time t of a prediction, a plain number


def with_rescale(model: Any, factor: float) -> Any:
    """A clone of a MODEL whose guided prediction has its contrast brought back to the conditional one's.

    x - denoised is the velocity times sigma: the ratio of contrasts is the same. Guiders that leave their one scale at
    1 (DualCFGGuider has two others) are not affected.

    Raises:
        ValueError: factor outside [0, 1].
    """
    factor = check_rescale(factor)

    def rescaled(arguments: dict) -> Tensor:
        scale = arguments["cond_scale"]
        if scale == 1:  # there was no null pass
            return arguments["cond"]
        return cfg_function(scale, rescale=factor)(arguments["cond"], arguments["uncond"], 0.0)

    def predict_noise(executor: Any, x: Tensor, timestep: Tensor, model_options: dict, seed: Any) -> Tensor:
        ours = model_options.get("sampler_cfg_function") is rescaled
        if ours and not has_one_scale(getattr(executor.class_obj, "cfg", 1.0)):
            model_options = {key: value for key, value in model_options.items() if key != "sampler_cfg_function"}
        return executor(x, timestep, model_options, seed)

    model = wrapped(model, RESCALE, predict_noise)
    model.set_model_sampler_cfg_function(rescaled)
    return model


def with_schedule(model: Any, shape: str, end: float) -> Any:
    """A clone of a MODEL whose guidance goes from the sampler's scale at t = 0 to `end` at t = 1.

    A scale of 1, the sampler's or that outside of an interval, stays 1.

    Raises:
        ValueError: an unknown shape.
    """
    cfg_schedule(shape, end)

    def scale_at(cfg: Any, t: float) -> Any:
        return cfg_schedule(shape, cfg, end)(t) if has_one_scale(cfg) else cfg

    return with_scale(model, SCHEDULE, scale_at)


def with_interval(model: Any, start: float, end: float) -> Any:
    """A clone of a MODEL whose guidance applies only where start < t < end; outside, there is no null pass.

    Raises:
        ValueError: not 0 <= start < end <= 1.
    """
    interval = check_interval((start, end))
    return with_scale(model, INTERVAL, lambda cfg, t: cfg if is_guided(t, interval) else None)


def with_scale(model: Any, key: str, scale_at: Callable[[Any, float], Any]) -> Any:
    """A clone of a MODEL for which a guider's scale is `scale_at(scale, t)` during each prediction; None = unguided."""

    def predict_noise(executor: Any, x: Tensor, timestep: Tensor, model_options: dict, seed: Any) -> Tensor:
        guider = executor.class_obj
        if not hasattr(guider, "cfg"):
            return executor(x, timestep, model_options, seed)
        model_options = with_time(model_options, timestep)
        cfg = guider.cfg
        scale = scale_at(cfg, model_options[TIME])
        if scale is None:
            scale, model_options = 1.0, without_null_pass(model_options, guider)
        guider.cfg = scale
        try:
            return executor(x, timestep, model_options, seed)
        finally:
            guider.cfg = cfg

    return wrapped(model, key, predict_noise)


def without_null_pass(model_options: dict[str, Any], guider: Any) -> dict[str, Any]:
    """Options of an unguided prediction that let a CFG++ sampler do without the null pass, too.

    Such a sampler asks for it even at cfg 1, and steps along its result. Unguided, that is the conditional one. What
    patches of the MODEL ask for stays: the options of its guider have it.
    """
    off, after = "disable_cfg1_optimization", "sampler_post_cfg_function"
    own = guider.model_options
    if not model_options.get(off) or own.get(off):
        return model_options
    of_patches = own.get(after, [])

    def unguided(function: Callable[[dict], Tensor]) -> Callable[[dict], Tensor]:
        return lambda arguments: function({**arguments, "uncond_denoised": arguments["cond_denoised"]})

    functions = [entry if entry in of_patches else unguided(entry) for entry in model_options.get(after, [])]
    return {**model_options, off: False, after: functions}


def with_time(model_options: dict[str, Any], timestep: Tensor) -> dict[str, Any]:
    """Options that have the time t of a prediction as a plain number; the pack's solvers put it there themselves.

    ComfyUI's samplers do not, and ask between the times of their schedule, too (heun, dpm_2, the SDE ones): only the
    tensor has it. Reading it waits for the device, once in a prediction, however many patches use it.
    """
    if TIME in model_options:
        return model_options
    return {**model_options, TIME: 1.0 - float(timestep.flatten()[0])}


def has_one_scale(cfg: Any) -> bool:
    """Whether a guider guides by one scale: some leave theirs at 1 and have two others, some have a list."""
    return isinstance(cfg, int | float) and cfg != 1


def wrapped(model: Any, key: str, predict_noise: Callable) -> Any:
    """A clone of a MODEL with a wrapper around each prediction; the last one of a key counts."""
    model = model.clone()
    kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    model.remove_wrappers_with_key(kind, key)
    model.add_wrapper_with_key(kind, key, predict_noise)
    return model
