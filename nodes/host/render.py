"""What PixelDiT Sampler does: settings and pictures in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...pixeldit_core.sampling import check_size
from ...pixeldit_core.settings import SETTINGS, SamplingSettings
from ...pixeldit_core.sizes import advise
from ...pixeldit_core.spec import ModelSpec
from . import sampling
from .conditions import CLASS, CONDITIONS
from .model import find_spec
from .pixels import ALPHA, composite, fit, to_channels, to_image, to_latent, to_mask
from .trajectory import Trajectory

AS_SET = "custom"
OWN = "checkpoint default"


def choose_settings(model: Any, name: str) -> SamplingSettings | None:
    """The settings of a name; None for "custom".

    Raises:
        ValueError: the checkpoint has none of its own; an unknown name.
    """
    known = find_spec(model)
    if name == AS_SET:
        return None
    if name in SETTINGS:
        return SETTINGS[name]
    if name != OWN:
        raise ValueError(f'settings "{name}" is not known; there are "{AS_SET}", "{OWN}", {", ".join(SETTINGS)}.')
    if known is None or known.settings is None:
        source = known.source if known else "this model"
        raise ValueError(
            f'{source} has no settings in its metadata. Choose "{AS_SET}" or one of the published settings by name.'
        )
    return known.settings


def no_condition(model: Any, positive: list, cfg: float) -> list:
    """What stands for a negative that is not connected.

    Raises:
        ValueError: a model that needs one.
    """
    known = find_spec(model)
    if known and known.family.null:
        return [[torch.zeros(1, 1, 1), {CLASS: known.family.null(known.params, 1)}]]
    if cfg == 1:
        return positive  # not asked for anything
    what = "PixelDiT Text Prompt has one" if known else "this model has no 'no class' of its own"
    raise ValueError(
        f"the negative input is not connected, and guidance needs it: {what}. Connect it, or set cfg to 1."
    )


def render(
    model: Any,
    positive: list,
    negative: list | None,
    image: Tensor | None,
    mask: Tensor | None,
    *,
    seed: int,
    settings: str,
    steps: int,
    solver: str,
    cfg: float,
    timeshift: float,
    cfg_interval_start: float,
    cfg_interval_end: float,
    width: int,
    height: int,
    batch_size: int,
    denoise: float,
    convention: str = "standard",
    frames: int = 0,
) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
    """Pictures as IMAGE, frames of how they came about (states, estimates), and a line that tells the settings used.

    Raises:
        ValueError: settings or inputs that do not fit; a result that is not finite.
    """
    if mask is not None and image is None:
        raise ValueError("a mask is connected and no image. Connect the image that the mask belongs to.")
    known, notes = find_spec(model), []
    if image is not None and image.shape[-1] == 4:
        notes.append(ALPHA)
    if chosen := choose_settings(model, settings):
        steps, solver, cfg, timeshift = chosen.steps, chosen.solver, chosen.cfg, chosen.timeshift
        cfg_interval_start, cfg_interval_end = chosen.cfg_interval
    height, width = _size(model, height, width, image)
    timeshift = timeshift or sampling.auto_timeshift(model, (height, width))
    times = sampling.make_times(model, steps, timeshift, denoise if image is not None else 1.0, convention=convention)

    channels = known.params.in_channels if known else 3
    count = max(batch_size, _num_classes(positive), 0 if image is None else len(image))
    if image is None:
        latent = torch.zeros(count, channels, height, width)
        noise = sampling.unit_noise(latent, seed, times)
    else:
        if mask is not None:
            mask = fit(to_mask(mask, image), width, height).movedim(-1, 1)
        image = _repeat(fit(to_channels(image, channels), width, height), count)
        latent = to_latent(image)
        noise = sampling.noise_for(latent, seed)
    if negative is None:
        negative = no_condition(model, positive, cfg)
    trajectory = Trajectory(frames, len(times) - 1) if frames else None
    if trajectory:
        trajectory.begin(torch.lerp(noise, model.model.process_latent_in(latent), times[0].to(noise)))
    samples = sampling.sample(
        model,
        positive,
        negative,
        noise=noise,
        latent=latent,
        mask=mask,
        seed=seed,
        solver=solver,
        times=times,
        cfg=cfg,
        interval=(cfg_interval_start, cfg_interval_end),
        timeshift=timeshift,
        convention=convention,
        trajectory=trajectory,
    )

    def finish(samples: Tensor) -> Tensor:
        picture = to_image(samples, known.family, convention) if known else to_image(samples)
        return picture if mask is None else composite(picture, image, mask)

    picture = finish(samples)
    if trajectory:
        states, estimates = trajectory.images(lambda x: finish(model.model.process_latent_out(x)), picture)
    else:
        states = estimates = picture
    interval = f"{cfg_interval_start:g} to {cfg_interval_end:g}"
    used = f"{steps} steps {solver}, cfg {cfg:g}, timeshift {timeshift:g}, interval {interval}, {width} x {height}"
    if convention != "standard":
        used += f", {convention} convention"
    if known:
        notes += _notes(known, settings, chosen, (height, width), (positive, negative))
    return (picture, states, estimates), "\nnote: ".join([used, *notes])


def _notes(
    known: ModelSpec, name: str, settings: SamplingSettings | None, size: tuple[int, int], texts: tuple
) -> Iterator[str]:
    """What a person should know of settings that work and may not look well."""
    if name in SETTINGS and name not in known.family.settings:
        yield f"the settings {name} are for another kind of model"
    elif settings and settings.size not in (None, size):
        yield f"these settings are for {settings.size[1]} x {settings.size[0]}"
    if advice := advise(size, known.trained_sizes):
        yield advice
    remark = CONDITIONS[known.family.condition].remark
    yield from filter(None, dict.fromkeys(remark(known, text) for text in texts))


def _size(model: Any, height: int, width: int, image: Tensor | None) -> tuple[int, int]:
    """Height and width; 0 = the image's own (which the adapter pads to whole patches), else the checkpoint's."""
    known = find_spec(model)
    if image is not None and not (height and width):
        return height or image.shape[1], width or image.shape[2]
    if known is None:
        if not height or not width:
            raise ValueError(
                "width or height is 0, the checkpoint's own size, which this model does not tell. Set both."
            )
        return height, width
    height, width = height or known.default_size[0], width or known.default_size[1]
    check_size(known, height, width)
    return height, width


def _num_classes(conditioning: list) -> int:
    return max((len(entry[1].get(CLASS, [])) for entry in conditioning), default=0)


def _repeat(images: Tensor, count: int) -> Tensor:
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
