"""Our flow mathematics in the host's terms: sigma = 1 - t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor
from tqdm.auto import tqdm

from ...pixeldit_core.flow.grid import linear_grid
from ...pixeldit_core.flow.guidance import check_interval, is_guided
from ...pixeldit_core.flow.sample import part_of_grid
from ...pixeldit_core.flow.solvers import SOLVERS
from .guidance import with_scale
from .model import about

INTERVAL = "pixeldit_cfg_interval"


def with_interval(model: Any, start: float, end: float) -> Any:
    """A clone of a MODEL whose guidance applies only where start < t < end; outside, the null pass is not done.

    Knows nothing of the model: whatever guider samples it is set to a scale of 1 for the call.

    Raises:
        ValueError: not 0 <= start < end <= 1.
    """
    interval = check_interval((start, end))
    return with_scale(model, INTERVAL, lambda cfg, t: cfg if is_guided(t, interval) else 1.0)


def auto_timeshift(model: Any, size: tuple[int, int] | None = None) -> float:
    """The MODEL's timeshift: a ModelSamplingSD3 that was patched in, else the recipe's for this (height, width)."""
    known = about(model)
    if known is not None and "model_sampling" not in model.object_patches:
        return known.recipe_for(size).timeshift
    return float(getattr(model.get_model_object("model_sampling"), "shift", 1.0))


def make_sigmas(
    model: Any, steps: int, timeshift: float, denoise: float = 1.0, last_step: float = 0.0, size: Any = None
) -> Tensor:
    """SIGMAS = 1 - times: the family's grid for a PixelDiT, the linear one for any other MODEL.

    `timeshift` and `last_step` 0 = automatic.

    Raises:
        ValueError: steps below 1 and the like.
    """
    known = about(model)
    grid = known.family.grid if known else linear_grid
    shift = timeshift or auto_timeshift(model, size)
    return 1.0 - part_of_grid(lambda n: grid(n, shift, last_step or None), steps, denoise)


def make_solver(name: str) -> comfy.samplers.KSAMPLER:
    """One of the core's solvers as a SAMPLER."""
    solve = SOLVERS[name]

    def run(model: Callable, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        if float(sigmas[0]) > 1.0 + 1e-4:
            raise ValueError(
                f"the PixelDiT solver {name} walks from sigma 1 to 0 and got {float(sigmas[0]):g}: it is made for flow "
                "models (PixelDiT, Flux, SD3 ...). Choose a sampler of ComfyUI's for this model."
            )
        rows = x.new_ones(x.shape[0])
        latest: dict[str, Tensor] = {}
        bar = tqdm(total=len(sigmas) - 1, disable=disable)

        def velocity(x: Tensor, t: float) -> Tensor:
            sigma = 1.0 - t
            latest["denoised"] = model(x, sigma * rows, **(extra_args or {}))
            return (latest["denoised"] - x) / sigma

        def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback({"x": x, "i": i, "sigma": 1.0 - t, "sigma_hat": 1.0 - t, "denoised": latest["denoised"]})

        with bar:
            return solve(velocity, x, 1.0 - sigmas.cpu(), on_step)

    run.__name__ = f"pixeldit_{name}"
    return comfy.samplers.KSAMPLER(run)


def noise_for(latent: Tensor, seed: int) -> Tensor:
    """The host's noise: one generator for the batch."""
    return comfy.sample.prepare_noise(latent, seed)


def unit_noise(latent: Tensor, seed: int, sigmas: Tensor) -> Tensor:
    """The same for an empty latent: unit noise once the host has scaled it by the first sigma.

    The text-to-image grid starts a little below 1, its state is pure noise all the same.
    """
    return noise_for(latent, seed) / sigmas[0]


def sample(
    model: Any,
    positive: Any,
    negative: Any,
    *,
    noise: Tensor,
    latent: Tensor,
    mask: Tensor | None,
    seed: int,
    solver: str,
    sigmas: Tensor,
    cfg: float,
    interval: tuple[float, float],
) -> Tensor:
    """Run the host's whole sampling machinery (memory, hooks, wrappers, previews, interrupt) with our solver."""
    guider = comfy.samplers.CFGGuider(with_interval(model, *interval))
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(
        noise,
        latent,
        make_solver(solver),
        sigmas,
        denoise_mask=mask,
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
