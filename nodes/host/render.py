"""What PixelDiT Sampler does: settings and images in, images out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...pixeldit_core.sizes import Size
from .conditions import num_rows
from .inputs import check_conditioning
from .pixels import ALPHA, composite, fit, hand_out, receive, repeat, to_channels, to_image, to_latent, to_mask
from .request import Request, describe, null_condition, remarks, resolve_settings, resolve_size
from .sampling import Plan, Start, draw_noise, draw_unit_noise, sample
from .spec import find_spec
from .times import find_convention, make_times
from .trajectory import Trajectory


class Rendered(NamedTuple):
    """IMAGE batches: the images, and frames of their trajectory; the settings used, alone and with notes on them."""

    images: Tensor
    states: Tensor
    estimates: Tensor
    settings: str
    text: str


def render(
    model: Any, positive: list, negative: list | None, image: Tensor | None, mask: Tensor | None, request: Request
) -> Rendered:
    """Generate images, from noise or from an image.

    Raises:
        ValueError: settings or inputs that do not fit; a result that is not finite.
    """
    if mask is not None and image is None:
        raise ValueError("a mask is connected, but no image. Connect the image that the mask belongs to.")
    image = None if image is None else receive(image, "image")
    mask = None if mask is None else receive(mask, "mask")
    check_conditioning(positive, "positive")
    check_conditioning(negative or [], "negative")
    spec = find_spec(model)
    size = resolve_size(spec, request, image)
    settings = resolve_settings(model, spec, request, size)
    convention = find_convention(spec, request.convention)
    denoise = request.denoise if image is not None else 1.0
    plan = Plan(settings, convention, make_times(spec, convention, settings.steps, settings.timeshift, denoise))
    if negative is None:
        negative = null_condition(spec, positive, settings.cfg)
    notes = [describe(settings, request.convention)]
    if image is not None and image.shape[-1] == 4:
        notes.append(ALPHA)
    if spec:
        notes += remarks(spec, request.settings, size, (positive, negative))

    channels = spec.params.in_channels if spec else 3
    count = max(request.batch_size, num_rows(positive))
    if image is not None:
        mask = None if mask is None else _fit(to_mask(mask, image), size)
        count = max(count, len(image), 0 if mask is None else len(mask))
        image = repeat(_fit(to_channels(image, channels), size), count)
    start = _start(image, mask, (count, channels, *size), request.seed, plan)
    trajectory = Trajectory(request.trajectory_frames, len(plan.times) - 1) if request.trajectory_frames else None
    if trajectory:
        trajectory.begin(start.state(model, plan))
    samples = sample(model, positive, negative, start, plan, trajectory.add if trajectory else None)

    def finish(samples: Tensor) -> Tensor:
        images = to_image(samples, spec.family, request.convention) if spec else to_image(samples)
        return images if mask is None or image is None else composite(images, image, mask)

    images = states = estimates = finish(samples)
    if trajectory:
        states, estimates = trajectory.images(lambda x: finish(model.model.process_latent_out(x)), images)
    return Rendered(*map(hand_out, (images, states, estimates)), notes[0], "\nnote: ".join(notes))


def _start(image: Tensor | None, mask: Tensor | None, shape: tuple[int, int, int, int], seed: int, plan: Plan) -> Start:
    """From an image [B, H, W, C] and its mask [1 or B, H, W, 1], or without one from unit noise [B, C, H, W]."""
    if image is None:
        latent = torch.zeros(shape)
        return Start(latent, draw_unit_noise(latent, seed, plan.times), seed)
    latent = to_latent(image)
    return Start(latent, draw_noise(latent, seed), seed, None if mask is None else mask.movedim(-1, 1))


def _fit(image: Tensor, size: Size) -> Tensor:
    height, width = size
    return fit(image, width, height)
