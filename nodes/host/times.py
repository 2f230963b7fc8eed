"""Time grids of a MODEL. A ComfyUI SIGMAS is 1 - times."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_sampling
from torch import Tensor

from ...pixeldit_core.flow.convention import Convention
from ...pixeldit_core.flow.times import linear_grid
from ...pixeldit_core.sampling import part_of_grid
from ...pixeldit_core.sizes import Size
from ...pixeldit_core.spec import ModelSpec


def find_convention(spec: ModelSpec | None, name: str = "standard") -> Convention:
    """The convention of a family; for any other MODEL, which has no published one, the linear grid's.

    Raises:
        ValueError: an unknown name.
    """
    return spec.family.convention(name) if spec else Convention(linear_grid)


def auto_timeshift(model: Any, spec: ModelSpec | None, size: Size | None = None) -> float:
    """The MODEL's timeshift: of a ModelSampling node that was patched in, else of the settings for this size."""
    if spec is not None and "model_sampling" not in model.object_patches:
        return spec.settings_for(size).timeshift
    sampling = model.get_model_object("model_sampling")
    shift = float(getattr(sampling, "shift", 1.0))
    # those of Flux and LTXV keep the logarithm of the factor
    return math.exp(shift) if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux) else shift


def make_times(
    spec: ModelSpec | None,
    convention: Convention,
    steps: int,
    timeshift: float,
    denoise: float = 1.0,
    last_step: float = 0.0,
) -> Tensor:
    """Times [steps + 1] of a trajectory, float32 on the CPU; the last part of a longer one with denoise below 1.

    Args:
        last_step: 0 = automatic.

    Raises:
        ValueError: steps below 1 and the like.
    """
    trained = spec.family.path(spec.params).time_range if spec else (0.0, 1.0)
    return part_of_grid(lambda n: convention.grid(n, timeshift, last_step or None, trained), steps, denoise)
