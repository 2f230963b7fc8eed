"""What PixelDiT Sampler was asked for, resolved to settings, a size and conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...pixeldit_core.flow.guidance import check_interval
from ...pixeldit_core.flow.solvers import SOLVERS
from ...pixeldit_core.sampling import check_size
from ...pixeldit_core.settings import SETTINGS, SamplingSettings
from ...pixeldit_core.sizes import Size, advise
from ...pixeldit_core.spec import ModelSpec
from .choices import choose
from .conditions import CONDITIONS, class_conditioning
from .times import auto_timeshift

CUSTOM = "custom"
CHECKPOINT = "checkpoint default"


@dataclass(frozen=True)
class Request:
    """The widgets of the node, by their names."""

    seed: int
    settings: str
    steps: int
    solver: str
    cfg: float
    timeshift: float  # 0 = automatic
    cfg_interval_start: float
    cfg_interval_end: float
    width: int  #       0 = automatic, as height
    height: int
    batch_size: int
    denoise: float
    convention: str = "standard"
    trajectory_frames: int = 0


def named_settings(spec: ModelSpec | None, name: str) -> SamplingSettings | None:
    """The settings of a name; None for "custom".

    Raises:
        ValueError: the checkpoint has no settings; an unknown name.
    """
    if name == CUSTOM:
        return None
    if name in SETTINGS:
        return SETTINGS[name]
    if name != CHECKPOINT:
        raise ValueError(
            f'settings "{name}" is not known; there are "{CUSTOM}", "{CHECKPOINT}", {", ".join(SETTINGS)}.'
        )
    if spec is None or spec.settings is None:
        source = spec.source if spec else "this model"
        raise ValueError(
            f'{source} has no settings in its metadata. Choose "{CUSTOM}" or one of the published settings by name.'
        )
    return spec.settings


def resolve_settings(model: Any, spec: ModelSpec | None, request: Request, size: Size) -> SamplingSettings:
    """The settings to sample with: those chosen by name, else the widgets'.

    Raises:
        ValueError: as `named_settings`; an interval that is none.
    """
    named = named_settings(spec, request.settings)
    if named is None and request.steps < 1:
        raise ValueError(f"steps is {request.steps}; it must be at least 1.")
    if named:
        return dataclasses.replace(named, size=size)
    return SamplingSettings(
        steps=request.steps,
        cfg=request.cfg,
        timeshift=request.timeshift or auto_timeshift(model, spec, size),
        cfg_interval=check_interval((request.cfg_interval_start, request.cfg_interval_end)),
        solver=choose("solver", request.solver, SOLVERS),
        size=size,
    )


def resolve_size(spec: ModelSpec | None, request: Request, image: Tensor | None) -> Size:
    """Height and width; 0 = the image's (which the adapter pads to whole patches), else the checkpoint's.

    Raises:
        ValueError: a size that the model cannot have, or has no default for.
    """
    height, width = request.height, request.width
    if image is not None and not (height and width):
        height, width = height or image.shape[1], width or image.shape[2]
        check_patch(spec, height, width)
        return height, width
    if spec is None:
        if not height or not width:
            raise ValueError("width or height is 0, and this model has no default size. Set both.")
        return height, width
    height, width = height or spec.default_size[0], width or spec.default_size[1]
    check_size(spec, height, width)
    return height, width


def check_patch(spec: ModelSpec | None, height: int, width: int) -> None:
    """Raises ValueError for an image of less than half a patch, of which padding makes most of what is sampled."""
    patch = spec.family.size_multiple(spec.params) if spec else 1
    if 2 * min(height, width) < patch:
        raise ValueError(
            f"the image is {width} x {height} pixels (width x height), less than half a patch of the model "
            f"({patch} x {patch}). Set width and height, to which it is scaled, or connect a larger image."
        )


def null_condition(spec: ModelSpec | None, positive: list, cfg: float) -> list:
    """The CONDITIONING in place of a negative that is not connected.

    Raises:
        ValueError: a model that needs one.
    """
    if spec and spec.family.null:
        return class_conditioning(spec.family.null(spec.params, 1).tolist(), spec.params.num_classes)
    if cfg == 1:
        return positive  # never evaluated
    what = "PixelDiT Text Prompt has one" if spec else "this model has no null class"
    raise ValueError(
        f"the negative input is not connected, and guidance needs it: {what}. Connect it, or set cfg to 1."
    )


def describe(settings: SamplingSettings, convention: str) -> str:
    """The settings that were used, as a line."""
    height, width = settings.size or (0, 0)
    start, end = settings.cfg_interval
    text = (
        f"{settings.steps} steps {settings.solver}, cfg {settings.cfg:g}, timeshift {settings.timeshift:g}, "
        f"interval {start:g} to {end:g}, {width} x {height}"
    )
    return text if convention == "standard" else f"{text}, {convention} convention"


def remarks(spec: ModelSpec, name: str, size: Size, conditions: tuple[list, list]) -> Iterator[str]:
    """Notes on settings that work, but may not look well."""
    named = named_settings(spec, name)
    if name in SETTINGS and name not in spec.family.settings:
        yield f"the settings {name} are for another kind of model"
    elif named and named.size not in (None, size):
        yield f"these settings are for {named.size[1]} x {named.size[0]}"
    if advice := advise(size, spec.trained_sizes):
        yield advice
    remark = CONDITIONS[spec.family.condition].remark
    yield from filter(None, dict.fromkeys(remark(spec, condition) for condition in conditions))
