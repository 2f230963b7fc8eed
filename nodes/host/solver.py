"""The core's solvers as a SAMPLER of ComfyUI's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
from torch import Tensor
from tqdm.auto import tqdm

from ...pixeldit_core.flow.convention import Convention
from ...pixeldit_core.flow.solvers import SOLVERS
from ...pixeldit_core.flow.times import linear_grid
from .guidance import TIME


def make_solver(name: str) -> comfy.samplers.KSAMPLER:
    """A solver for any SIGMAS, in the standard convention."""
    standard = Convention(linear_grid)  # its grid is not used: the sigmas are given

    def run(model: Callable, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        if float(sigmas[0]) > 1.0 + 1e-4:
            raise ValueError(
                f"the PixelDiT solver {name} integrates from sigma 1 to 0 and got {float(sigmas[0]):g}: it is made for "
                "flow models (PixelDiT, Flux, SD3 ...). Choose one of ComfyUI's samplers for this model."
            )
        return _integrate(name, standard, 1.0, 1.0 - sigmas.cpu(), model, x, extra_args, callback, disable)

    return _sampler(name, run)


def make_planned_solver(name: str, convention: Convention, timeshift: float, times: Tensor) -> comfy.samplers.KSAMPLER:
    """A solver for exactly these times, which the SIGMAS given to ComfyUI have rounded; they may end before t = 1."""

    def run(model: Callable, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        x = _integrate(name, convention, timeshift, times, model, x, extra_args, callback, disable)
        # if the schedule ends before t = 1, ComfyUI's inverse_noise_scaling divides by t; undo that
        return x * times[-1] if times[-1] < 1 else x

    return _sampler(name, run)


def _sampler(name: str, run: Callable) -> comfy.samplers.KSAMPLER:
    run.__name__ = f"pixeldit_{name}"
    return comfy.samplers.KSAMPLER(run)


def _integrate(
    name: str,
    convention: Convention,
    timeshift: float,
    times: Tensor,
    model: Callable,
    x: Tensor,
    extra_args: dict[str, Any] | None,
    callback: Callable | None,
    disable: bool | None,
) -> Tensor:
    """From the state at times[0] to that at times[-1]; `model` gives the image estimate at a sigma."""
    rows = x.new_ones(x.shape[0])
    arguments = {"model_options": {}, **(extra_args or {})}
    denoised = x
    bar = tqdm(total=len(times) - 1, disable=disable)

    def velocity(x: Tensor, t: float) -> Tensor:
        nonlocal denoised
        sigma = 1.0 - convention.network_time(t, timeshift)
        options = {**arguments["model_options"], TIME: t}
        denoised = model(x, sigma * rows, **{**arguments, "model_options": options})
        return (denoised - x) / max(sigma, convention.min_noise_level)

    def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
        bar.update()
        if callback is not None:
            callback({"x": x, "i": i, "sigma": 1.0 - t, "sigma_hat": 1.0 - t, "denoised": denoised})

    with bar:
        return SOLVERS[name](velocity, x, times, on_step)
