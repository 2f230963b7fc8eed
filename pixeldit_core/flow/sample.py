"""The sampling loop, and the noise it starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .guidance import Combine, guided_velocity
from .solvers import SOLVERS, OnStep


def noise(model: Any, seeds: int | Sequence[int], height: int, width: int) -> Tensor:
    """Unit noise, float32 [B, C, height, width] on the CPU.

    One generator per image, seeded with that image's number: the same picture alone or in any batch.
    """
    seeds = [seeds] if isinstance(seeds, int) else seeds
    shape = (model.params.in_channels, height, width)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def time_grid(
    model_or_family: Any,
    steps: int,
    timeshift: float | None = None,
    last_step: float | None = None,
    rule: str = "house",
) -> Tensor:
    """Times of a model or family: float32 [steps + 1] on the CPU, first 0, last 1 (or the family's start and end).

    `timeshift` None = the recipe's; `last_step` None = the family's.
    """
    family = getattr(model_or_family, "family", model_or_family)
    params = getattr(model_or_family, "params", None)
    params = None if isinstance(params, type) else params  # a family has the class in this place
    if timeshift is None:
        known = hasattr(model_or_family, "recipe_for")
        recipe = model_or_family.recipe_for(None) if known else family.default_recipe(None, None)
        timeshift = recipe.timeshift
    return family.rule(rule).grid(steps, timeshift, last_step, params)


def check_size(model: Any, height: int, width: int) -> None:
    """Raises ValueError, naming the nearest size that fits, unless both are multiples of the family's."""
    multiple = model.family.size_multiple(model.params)
    if height < multiple or width < multiple or height % multiple or width % multiple:
        nearest = [max(multiple, round(side / multiple) * multiple) for side in (width, height)]
        raise ValueError(
            f"size {width} x {height} (width x height) does not divide into the model's patches of {multiple} x "
            f"{multiple} pixels. The nearest that does is {nearest[0]} x {nearest[1]}."
        )


def check_finite(x: Tensor, source: str = "") -> None:
    """Raises ValueError if a sampled state holds NaN or infinity: looked at once, at the end."""
    if not torch.isfinite(x).all():
        raise ValueError(
            f"{source and source + ': '}the sampled picture is not finite (NaN or infinity). Either the weights are "
            "damaged, or the precision is too low for them: load the model in float32 or bfloat16 instead of float16 "
            "or float8, and if that does not help, get the file again."
        )


def part_of_grid(times_for: Callable[[int], Tensor], steps: int, denoise: float) -> Tensor:
    """The last `steps` steps of a grid with int(steps / denoise) of them, ComfyUI's meaning of denoise.

    Raises:
        ValueError: denoise outside (0, 1].
    """
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise is {denoise}; it must be above 0 and at most 1 (1 = start from pure noise).")
    return times_for(steps if denoise > 0.9999 else int(steps / denoise))[-(steps + 1) :]


def keep_outside(velocity: Callable, image: Tensor, start: Tensor, mask: Tensor) -> Callable:
    """A velocity that changes `image` only where `mask` is 1; `start` is the noise that belongs to it."""

    def masked(x: Tensor, t: float) -> Tensor:
        x_in = torch.lerp(torch.lerp(start, image, t), x, mask)
        arrival = torch.lerp(image, x_in + (1 - t) * velocity(x_in, t), mask)
        return (arrival - x) / (1 - t)

    return masked


@torch.inference_mode()
def sample(
    model: Any,
    cond: Any,
    null: Any = None,
    *,
    noise: Tensor | None = None,
    seeds: int | Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    solver: str | None = None,
    cfg: float | Combine | None = None,
    timeshift: float | None = None,
    cfg_interval: tuple[float, float] | None = None,
    last_step: float | None = None,
    times: Tensor | None = None,
    rule: str = "house",
    image: Tensor | None = None,
    mask: Tensor | None = None,
    denoise: float = 1.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample pictures: the final state [B, C, H, W], float32, in the model's range, not clamped.

    None stands for the recipe of the checkpoint or, without one, of the family for this size.

    Args:
        cond: conditions, one row per image.
        null: the same for no condition; None = no class for families of classes, no guidance for families of text.
        noise: start [B, C, H, W]; else drawn from `seeds`, one per image (None = 0, 1, 2 ...).
        size: height, width.
        cfg: scale, or a function (v_cond, v_null, t) -> velocity.
        cfg_interval: start and end of guidance in t (0 = noise, 1 = image).
        times: a grid of one's own, in place of steps, timeshift, last_step and denoise.
        rule: "house", the correct mathematics, or "published", as the authors' program does it, quirks included; the
            same for the official models.
        image: state to start from (`from_image`), with `denoise` below 1 or a `mask`.
        mask: [B or 1, 1, H, W], 1 = make new, 0 = keep `image` exactly.
        denoise: share of the way to walk; 1 = all of it.
        on_step: called as (i, t, x, v) after each step.

    Raises:
        ValueError: an unknown solver or rule, a size or count that does not fit, a result that is not finite.
    """
    walk = model.family.rule(rule)
    start = _start(model, noise, seeds, size, _num_rows(cond), image)
    count = len(start)
    cond = _spread(cond, count)
    recipe = model.recipe_for(tuple(start.shape[-2:]))
    if null is not None:
        null = _spread(null, count)
    elif model.family.null:
        null = model.family.null(model.params, count)
    solve = _solver(solver or recipe.solver)
    shift = recipe.timeshift if timeshift is None else timeshift
    if times is None:
        if denoise < 1 and image is None:
            raise ValueError(f"denoise is {denoise}, and there is no image to start from. Give one, or denoise 1.")
        steps = recipe.steps if steps is None else steps
        times = part_of_grid(lambda n: walk.grid(n, shift, last_step, model.params), steps, denoise)
    times = check_times(times)

    velocity = guided_velocity(
        walk.velocity(model.velocity, shift),
        cond,
        null,
        recipe.cfg if cfg is None else cfg,
        recipe.cfg_interval if cfg_interval is None else cfg_interval,
        walk.guided,
    )
    if mask is not None and image is None:
        raise ValueError("the mask needs an image: what it keeps. Give one, or leave the mask out.")
    x = start
    if image is not None:
        image = _for_each(image, start, start.shape[1], "image")
        x = torch.lerp(start, image, float(times[0]))
        if mask is not None:
            mask = _for_each(mask, start, 1, "mask")
            velocity = keep_outside(velocity, image, start, mask)
    x = solve(velocity, x, times, on_step)
    if mask is not None:
        x = torch.where(mask == 0, image, x)
    check_finite(x, model.source)
    return x


def check_times(times: Any) -> Tensor:
    """A grid as a tensor.

    Raises:
        ValueError: less than two times, or one that is not in [0, 1].
    """
    times = torch.as_tensor(times)
    if times.ndim != 1 or len(times) < 2 or not ((times >= 0) & (times <= 1)).all():
        raise ValueError("times need at least two numbers, each of 0 to 1 (0 = noise, 1 = image).")
    return times


def _num_rows(cond: Any) -> int:
    return len(cond[0]) if isinstance(cond, tuple) else len(cond)


def _spread(cond: Any, count: int) -> Any:
    """One row for all images becomes one for each."""
    if isinstance(cond, tuple):
        return tuple(None if part is None else _spread(part, count) for part in cond)
    if len(cond) not in (1, count):
        raise ValueError(f"there are {len(cond)} conditions for {count} images; give one for each, or one for all.")
    return cond.expand(count, *cond.shape[1:])


def _start(model: Any, given: Tensor | None, seeds: Any, size: Any, rows: int, image: Tensor | None) -> Tensor:
    """The noise to start from, checked: one image per seed, or without seeds one per condition."""
    if given is None:
        if size is None:
            size = image.shape[-2:] if image is not None else model.own_size
        check_size(model, *size)
        given = noise(model, range(rows) if seeds is None else seeds, *size)
    check_size(model, *given.shape[-2:])
    if image is not None and image.shape[-2:] != given.shape[-2:]:
        (height, width), (rows, columns) = image.shape[-2:], given.shape[-2:]
        raise ValueError(
            f"the image is {width} x {height} pixels (width x height), the picture to make {columns} x {rows}. "
            "Scale or crop the image to that size."
        )
    return given.to(model.device, torch.float32)


def _for_each(given: Tensor, start: Tensor, channels: int, what: str) -> Tensor:
    """An image or mask for each picture."""
    count, _, height, width = start.shape
    if given.ndim != 4 or given.shape[1:] != (channels, height, width):
        raise ValueError(
            f"the {what} has shape {list(given.shape)}; expected [1 or {count}, {channels}, {height}, {width}]."
        )
    if len(given) not in (1, count):
        raise ValueError(f"there are {len(given)} {what}s to start from for {count} pictures; give one, or one each.")
    return given.to(start).expand(count, -1, -1, -1)


def _solver(name: str) -> Callable:
    if name not in SOLVERS:
        raise ValueError(f'solver "{name}" is not known; there are {", ".join(SOLVERS)}.')
    return SOLVERS[name]
