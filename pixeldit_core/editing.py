"""Editing an image by its condition, without inversion: FlowEdit, arXiv 2412.08629 (spec: pixeldit2, section 9.1).

The image goes along the difference of two velocities: that of the target at the edited state, and that of the source at
the image, both with the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .conditions import expand_rows
from .flow.solvers import OnStep, euler
from .flow.times import even_times
from .model import Condition, Model
from .sampling import check_finite, check_input, check_size, condition_velocities, null_for, unit_noise

Branches = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (x, t) -> velocity with guidance, and without

# of the prior that keeps an edit to where the two velocities differ
_STRENGTH, _MEMORY, _QUANTILE, _FLOOR, _LEAST = 0.75, 0.85, 0.80, 0.20, 1e-6


@torch.inference_mode()
def edit(
    model: Model,
    image: Tensor,
    source: Condition | None,
    target: Condition,
    null: Condition | None = None,
    *,
    noise: Tensor | None = None,
    seeds: int | Sequence[int] | None = None,
    steps: int = 28,
    averages: int = 1,
    source_cfg: float = 1.0,
    target_cfg: float = 3.0,
    interval: tuple[float, float] = (0.35, 0.95),
    strength: float = 1.0,
    localized: bool = True,
    terminal_steps: int = 0,
    convention: str = "standard",
    on_step: OnStep | None = None,
) -> Tensor:
    """Edit images: states [B, C, H, W], float32, in the model's range, not clamped.

    Args:
        image: states to edit (`from_image`).
        source: what the images are, one row per image or one for all; None = not known.
        target: what they shall become.
        null: as in `sample`.
        noise: unit noise [B, C, H, W]; else drawn from `seeds`, one per image (None = 0, 1, 2 ...).
        averages: noises that each step is averaged over.
        source_cfg, target_cfg: guidance scales, on all of the interval; 1 = none.
        interval: first and last t of the edit (0 = noise, 1 = image): the earlier it starts, the more it changes.
        strength: multiplies each step.
        localized: keep most of the edit to where the two velocities differ most.
        terminal_steps: sampling steps of the target from the end of the interval to the image; 0 = none.
        convention: "standard" or "reference", as in `sample`.
        on_step: called as (i, t, x, v) after each step; terminal steps follow in the count.

    Raises:
        ValueError: a size, count, interval or convention that does not fit, an input or result that is not finite.
    """
    for name, value in (("image", image), ("noise", noise)):
        check_input(value, name)
    x_s = image.to(model.device, torch.float32)
    noise, count = _scaled_noise(model, x_s, noise, seeds), len(x_s)
    velocity, null = model.family.convention(convention).velocity(model.velocity, 1.0), null_for(model, null, count)
    source = expand_rows(_unknown(model, count) if source is None else source, count)
    of_source = _branches(*condition_velocities(velocity, source, null), source_cfg)
    of_target = _branches(*condition_velocities(velocity, expand_rows(target, count), null), target_cfg)

    z = flow_edit(
        of_target,
        of_source,
        x_s,
        noise,
        steps=steps,
        averages=averages,
        interval=interval,
        strength=strength,
        localized=localized,
        terminal_steps=terminal_steps,
        on_step=on_step,
    )
    check_finite(z, model.spec.source)
    return z


def flow_edit(
    of_target: Branches,
    of_source: Branches,
    image: Tensor,
    noise: Tensor,
    *,
    steps: int,
    averages: int,
    interval: tuple[float, float],
    strength: float,
    localized: bool,
    terminal_steps: int,
    on_step: OnStep | None = None,
) -> Tensor:
    """The edit along two velocity fields; arguments as of `edit`, the noise in the family's scale.

    Args:
        of_target, of_source: (x, t) -> velocity with guidance, and without; of the source without only where
            `localized`.

    Raises:
        ValueError: an interval or count that does not fit.
    """
    _check_numbers(steps, averages, interval, terminal_steps)
    prior, z = _Prior(), image
    times = even_times(*interval, steps + 1).tolist()
    for i, (t, t_next) in enumerate(pairwise(times)):
        deltas: list[Tensor] = []
        for k in range(averages):
            x_src = torch.lerp(_noise_of(noise, i, k), image, t)
            v_tar, v_tar_cond = of_target(z + x_src - image, t)
            v_src, v_src_cond = of_source(x_src, t)
            delta = v_tar - v_src
            deltas.append(delta * prior.mask(v_tar_cond - v_src_cond) if localized else delta)
        v = strength * torch.stack(deltas).mean(0)
        z = z + (t_next - t) * v
        if on_step:
            on_step(i, t_next, z, v)
    if terminal_steps:
        z = z + torch.lerp(_noise_of(noise, steps, 0), image, interval[1]) - image
        ends = even_times(interval[1], 1.0, terminal_steps + 1)
        report = (lambda i, t, x, v: on_step(steps + i, t, x, v)) if on_step else None
        z = euler(lambda x, t: of_target(x, t)[0], z, ends, report)
    return z


def _scaled_noise(model: Model, image: Tensor, noise: Tensor | None, seeds: int | Sequence[int] | None) -> Tensor:
    """The noise of the images, in the family's scale."""
    count, _, height, width = image.shape
    check_size(model.spec, height, width)
    if noise is None:
        noise = unit_noise(model, range(count) if seeds is None else seeds, height, width)
    if noise.shape != image.shape:
        raise ValueError(f"the noise has shape {list(noise.shape)}; the image needs {list(image.shape)}.")
    return noise.to(image) * model.family.path(model.params).noise_scale


def _unknown(model: Model, count: int) -> Condition:
    """Of images that may be anything."""
    unknown = model.family.unknown or model.family.null
    if unknown is None:
        raise ValueError(f"{model.family.title} has no condition for an unknown source: encode a text of the image.")
    return unknown(model.params, count)


@dataclass
class _Prior:
    """Where the velocities of target and source differ, averaged over the calls so far."""

    average: Tensor | None = None  # [B, 1, H, W]

    def mask(self, difference: Tensor) -> Tensor:
        """From the next difference [B, C, H, W], the share of the edit that each pixel takes, [B, 1, H, W]."""
        now = difference.square().mean(dim=1, keepdim=True).sqrt()
        self.average = now if self.average is None else torch.lerp(now, self.average, _MEMORY)
        high = torch.stack([torch.quantile(row.flatten(), _QUANTILE) for row in self.average])
        share = (self.average / high.clamp(min=_LEAST).view(-1, 1, 1, 1)).clamp(max=1)
        return 1 + _STRENGTH * (_FLOOR + (1 - _FLOOR) * share - 1)


def _branches(
    conditional: Callable[[Tensor, float], Tensor],
    pair: Callable[[Tensor, float], tuple[Tensor, Tensor]] | None,
    cfg: float,
) -> Branches:
    def plain(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        v = conditional(x, t)
        return v, v

    def guided(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        assert pair is not None
        v_null, v_cond = pair(x, t)
        return torch.lerp(v_null, v_cond, cfg), v_cond

    return plain if pair is None or cfg == 1 else guided


def _noise_of(noise: Tensor, i: int, k: int) -> Tensor:
    """The noise of a step and average: the same values, moved along all axes, and every second time negated."""
    channels, height, width = noise.shape[1:]
    shifts = ((i + 2 * k) % channels, (17 * i + 7 * k) % height, (29 * i + 11 * k) % width)
    moved = noise.roll(shifts, (1, 2, 3))
    return -moved if (i + k) % 2 else moved


def _check_numbers(steps: int, averages: int, interval: tuple[float, float], terminal_steps: int) -> None:
    start, end = interval
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"the interval of the edit is {start:g} to {end:g}; it needs 0 <= start < end <= 1 (0 = noise, 1 = image)."
        )
    for name, value, least in (("steps", steps, 1), ("averages", averages, 1), ("terminal_steps", terminal_steps, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
