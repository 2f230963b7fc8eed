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

from ...pixeldit_core.flow.convention import Convention
from ...pixeldit_core.flow.guidance import check_interval, is_guided
from ...pixeldit_core.flow.solvers import SOLVERS
from ...pixeldit_core.flow.times import linear_grid
from ...pixeldit_core.sampling import part_of_grid
from .guidance import with_scale
from .model import find_spec
from .trajectory import Trajectory

INTERVAL = "pixeldit_cfg_interval"


def find_convention(model: Any, name: str) -> Convention:
    """The convention of a MODEL's family; of any other MODEL, which has no published one, the house's."""
    known = find_spec(model)
    return known.family.convention(name) if known else Convention(linear_grid)


def with_interval(model: Any, start: float, end: float) -> Any:
    """A clone of a MODEL whose guidance applies only where start < t < end; outside, the null pass is not done.

    Raises:
        ValueError: not 0 <= start < end <= 1.
    """
    interval = check_interval((start, end))
    return with_scale(model, INTERVAL, lambda cfg, t: cfg if is_guided(t, interval) else 1.0)


def auto_timeshift(model: Any, size: tuple[int, int] | None = None) -> float:
    """The MODEL's timeshift: a ModelSamplingSD3 that was patched in, else the settings's for this (height, width)."""
    known = find_spec(model)
    if known is not None and "model_sampling" not in model.object_patches:
        return known.settings_for(size).timeshift
    return float(getattr(model.get_model_object("model_sampling"), "shift", 1.0))


def make_times(
    model: Any,
    steps: int,
    timeshift: float,
    denoise: float = 1.0,
    last_step: float = 0.0,
    size: Any = None,
    convention: str = "standard",
) -> Tensor:
    """Times of a walk: the family's grid for a PixelDiT, the linear one for any other MODEL.

    `timeshift` and `last_step` 0 = automatic.

    Raises:
        ValueError: steps below 1 and the like.
    """
    known, grid = find_spec(model), find_convention(model, convention).grid
    trained = known.family.path(known.params).time_range if known else (0.0, 1.0)
    shift = timeshift or auto_timeshift(model, size)
    return part_of_grid(lambda n: grid(n, shift, last_step or None, trained), steps, denoise)


def make_solver(name: str, convention: Convention | None = None, timeshift: float = 1.0) -> comfy.samplers.KSAMPLER:
    """One of the core's solvers as a SAMPLER.

    With a published convention the network is told that convention's times, and the walk may end before the image.
    """
    solve, given, convention = SOLVERS[name], convention, convention or Convention(linear_grid)

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
            sigma = 1.0 - convention.network_time(t, timeshift)
            latest["denoised"] = model(x, sigma * rows, **(extra_args or {}))
            return (latest["denoised"] - x) / max(sigma, convention.min_noise_level)

        def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback({"x": x, "i": i, "sigma": 1.0 - t, "sigma_hat": 1.0 - t, "denoised": latest["denoised"]})

        times = 1.0 - sigmas.cpu()
        with bar:
            x = solve(velocity, x, times, on_step)
        # behind a walk that ends early, the host divides by the share of the image: right for a part of a longer walk
        return x * times[-1] if given and times[-1] < 1 else x

    run.__name__ = f"pixeldit_{name}"
    return comfy.samplers.KSAMPLER(run)


def noise_for(latent: Tensor, seed: int) -> Tensor:
    """The host's noise: one generator for the batch."""
    return comfy.sample.prepare_noise(latent, seed)


def unit_noise(latent: Tensor, seed: int, times: Tensor) -> Tensor:
    """The same for an empty latent: unit noise once the host has scaled it by the first sigma.

    Some grids start a little after 0, their state is pure noise all the same.
    """
    return noise_for(latent, seed) / (1.0 - times[0])


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
    times: Tensor,
    cfg: float,
    interval: tuple[float, float],
    timeshift: float = 1.0,
    convention: str = "standard",
    trajectory: Trajectory | None = None,
) -> Tensor:
    """Run the host's whole sampling machinery (memory, hooks, wrappers, previews, interrupt) with our solver.

    `trajectory` takes down what the walk passes.
    """
    walk, preview = find_convention(model, convention), latent_preview.prepare_callback(model, len(times) - 1)
    guides = _guides(walk, times, timeshift, interval, cfg)
    guider = comfy.samplers.CFGGuider(with_scale(model, INTERVAL, lambda scale, t: scale if guides(t) else 1.0))
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)

    def on_step(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        preview(step, denoised, x, total)
        if trajectory is not None:
            trajectory.add(step, denoised, x)

    return guider.sample(
        noise,
        latent,
        make_solver(solver, walk, timeshift),
        (1.0 - times).float(),
        denoise_mask=mask,
        callback=on_step,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )


def _guides(
    convention: Convention, times: Tensor, timeshift: float, interval: tuple[float, float], cfg: float
) -> Callable[[float], bool]:
    """Whether a call is guided, by the time the network is told; a convention may look at where the walk is instead.

    Solvers ask at times of the grid only.
    """
    interval = check_interval(interval)
    walked = times.tolist()
    told = [convention.network_time(t, timeshift) for t in walked]

    def guides(clock: float) -> bool:
        nearest = min(range(len(told)), key=lambda i: abs(told[i] - clock))
        return convention.guided(walked[nearest], interval, cfg)

    return guides
