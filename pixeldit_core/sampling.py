"""The sampling loop, and the noise it starts from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .compiled import compiled_velocity
from .conditions import concatenate, expand_rows, fit_together, num_rows
from .families import Family
from .flow.guidance import CFG, guided_velocity
from .flow.inpaint import inpaint_velocity
from .flow.solvers import SOLVERS, OnStep, Solver
from .model import Condition, Model
from .sizes import Size
from .spec import ModelSpec


def unit_noise(model: Model | ModelSpec, seeds: int | Sequence[int], height: int, width: int) -> Tensor:
    """Unit noise, float32 [B, C, height, width] on the CPU.

    One generator per image, seeded with that image's number: the same image alone or in any batch.

    Raises:
        ValueError: no seed, and so no image.
    """
    seeds = [seeds] if isinstance(seeds, int) else seeds
    if not len(seeds):
        raise ValueError("there is no image to sample: give at least one seed and one condition.")
    shape = (model.params.in_channels, height, width)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def time_grid(
    model_or_family: Model | ModelSpec | Family,
    steps: int,
    timeshift: float | None = None,
    last_step: float | None = None,
    convention: str = "standard",
) -> Tensor:
    """Times of a model or family: float32 [steps + 1] on the CPU, first 0, last 1 (or the family's start and end).

    `timeshift` None = that of the settings; `last_step` None = the family's.

    Raises:
        ValueError: an unknown convention; steps, timeshift or last_step out of range.
    """
    if isinstance(model_or_family, Family):
        family, params = model_or_family, None
        default = family.default_settings(None, None)
    else:
        spec = model_or_family.spec if isinstance(model_or_family, Model) else model_or_family
        family, params, default = spec.family, spec.params, spec.settings_for(None)
    shift = default.timeshift if timeshift is None else timeshift
    return family.convention(convention).grid(steps, shift, last_step, family.path(params).time_range)


def check_size(spec: ModelSpec, height: int, width: int) -> None:
    """Raises ValueError, naming the nearest size that fits, unless the model can generate this one.

    Both sides are multiples of the family's `size_multiple` and within its `size_limits`.
    """
    multiple = spec.family.size_multiple(spec.params)
    least, most = spec.family.size_limits(spec.params)
    size = (height, width)
    nearest = [max(low, round(side / multiple) * multiple) for side, low in zip(size, least, strict=True)]
    if most is not None:
        nearest = [min(side, high) for side, high in zip(nearest, most, strict=True)]
    if size == tuple(nearest):
        return
    fitting = f"The nearest that does is {nearest[1]} x {nearest[0]}."
    if height % multiple or width % multiple:
        raise ValueError(
            f"size {width} x {height} (width x height) does not divide into the model's patches of {multiple} x "
            f"{multiple} pixels. {fitting}"
        )
    limits = f"at least {least[1]} x {least[0]}" + (f" and at most {most[1]} x {most[0]}" if most else "")
    raise ValueError(
        f"size {width} x {height} (width x height) does not fit the model, which generates {limits} pixels. {fitting}"
    )


def check_finite(x: Tensor, source: str = "") -> None:
    """Raises ValueError if a sampled state holds NaN or infinity: checked once, at the end."""
    if not torch.isfinite(x).all():
        raise ValueError(
            f"{source and source + ': '}the sampled image is not finite (NaN or infinity). Either the weights are "
            "damaged, or the precision is too low for them: load the model in float32 or bfloat16 instead of float16 "
            "or float8, and if that does not help, get the file again."
        )


def check_input(value: Tensor | None, name: str) -> None:
    """Raises ValueError if what sampling starts from holds NaN or infinity; the message calls it `name`.

    Checked once, at the start: in the sampled image it would look as if the weights were damaged.
    """
    if value is not None and not (finite := torch.isfinite(value)).all():
        raise ValueError(
            f"the {name} is not finite: {finite.numel() - int(finite.sum()):,} of its {finite.numel():,} values are "
            "NaN or infinity. Look at what made it: a step in too low a precision, such as an upscaler or an encoder "
            "in float16, or a damaged file."
        )


def _check_inputs(cond: Condition, null: Condition | None, others: Mapping[str, Tensor | None]) -> None:
    for name, condition in (("condition", cond), ("null condition", null)):
        for part in condition if isinstance(condition, tuple) else (condition,):
            check_input(part, name)
    for name, value in others.items():
        check_input(value, name)


def part_of_grid(times_for: Callable[[int], Tensor], steps: int, denoise: float) -> Tensor:
    """The last `steps` steps of a grid with int(steps / denoise) of them, ComfyUI's meaning of denoise.

    Raises:
        ValueError: denoise outside (0, 1].
    """
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise is {denoise}; it must be above 0 and at most 1 (1 = start from pure noise).")
    return times_for(steps if denoise > 0.9999 else int(steps / denoise))[-(steps + 1) :]


@torch.inference_mode()
def sample(
    model: Model,
    cond: Condition,
    null: Condition | None = None,
    *,
    noise: Tensor | None = None,
    seeds: int | Sequence[int] | None = None,
    size: Size | None = None,
    steps: int | None = None,
    solver: str | None = None,
    cfg: CFG | None = None,
    timeshift: float | None = None,
    cfg_interval: tuple[float, float] | None = None,
    last_step: float | None = None,
    times: Tensor | Sequence[float] | None = None,
    convention: str = "standard",
    image: Tensor | None = None,
    mask: Tensor | None = None,
    denoise: float = 1.0,
    compile: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample images: the final state [B, C, H, W], float32, in the model's range, not clamped.

    None stands for the settings of the checkpoint or, without any, of the family for this size.

    Args:
        cond: conditions, one row per image; for a mix of classes, weights [B, num_classes + 1] of the rows of their
            table.
        null: the same without a condition; None = the null class for families of classes, no guidance for families of
            text.
        noise: start [B, C, H, W]; else drawn from `seeds`, one per image (None = 0, 1, 2 ...).
        size: height, width.
        cfg: scale, or a function (v_cond, v_null, t) -> velocity.
        cfg_interval: start and end of guidance in t (0 = noise, 1 = image).
        times: a grid of one's own, in place of steps, timeshift, last_step and denoise.
        convention: "standard", correct ODE sampling, or "reference", exactly as the authors' program samples, quirks
            included; the same for the official models.
        image: state to start from (`from_image`), with `denoise` below 1 or a `mask`.
        mask: [B or 1, 1, H, W], 1 = generate, 0 = keep `image` exactly.
        denoise: share of the trajectory to sample; 1 = all of it.
        compile: through torch.compile, and on CUDA through CUDA graphs: the same image up to rounding. The first call
            of the network takes minutes for a large one, and so does one for another size; the model keeps what was
            compiled, so later samplings do not wait. Needs a C++ compiler on a CPU, Triton on a GPU.
        on_step: called as (i, t, x, v) after each step.

    Raises:
        ValueError: an unknown solver or convention, a size or count that does not fit, an input or a result that is
            not finite; `compile` where torch.compile does not work.
    """
    started = time.perf_counter()
    _check_inputs(cond, null, {"noise": noise, "image": image, "mask": mask})
    if mask is not None and image is None:
        raise ValueError("the mask needs an image: what it keeps. Give one, or leave the mask out.")
    spec, rules = model.spec, model.family.convention(convention)
    start = _start(model, noise, seeds, size, num_rows(cond), image)
    settings = spec.settings_for((start.shape[-2], start.shape[-1]))
    solve = _solver(solver or settings.solver)
    shift = settings.timeshift if timeshift is None else timeshift
    if times is None:
        if denoise < 1 and image is None:
            raise ValueError(f"denoise is {denoise}, and there is no image to start from. Give one, or denoise 1.")
        trained = spec.family.path(spec.params).time_range
        steps = settings.steps if steps is None else steps
        times = part_of_grid(lambda n: rules.grid(n, shift, last_step, trained), steps, denoise)
    times = check_times(times)

    conditions = _conditions(model, cond, null, len(start))
    compiled = compiled_velocity(model) if compile else None
    velocity = guided_velocity(
        *condition_velocities(rules.velocity(compiled or model.velocity, shift), *conditions),
        settings.cfg if cfg is None else cfg,
        settings.cfg_interval if cfg_interval is None else cfg_interval,
        rules.guided,
    )
    if image is None:
        x = solve(velocity, start, times, on_step)
    else:
        image = _for_each(image, start, start.shape[1], "image")
        x = torch.lerp(start, image, float(times[0]))
        if mask is not None:
            mask = _for_each(mask, start, 1, "mask")
            velocity = inpaint_velocity(velocity, image, start, mask)
        x = solve(velocity, x, times, on_step)
        if mask is not None:
            x = torch.where(mask == 0, image, x)
    check_finite(x, spec.source)
    if compiled:
        compiled.seconds += time.perf_counter() - started
    return x


def check_times(times: Tensor | Sequence[float]) -> Tensor:
    """A grid as a tensor.

    Raises:
        ValueError: less than two times, or one that is not in [0, 1].
    """
    times = torch.as_tensor(times)
    if times.ndim != 1 or len(times) < 2 or not ((times >= 0) & (times <= 1)).all():
        raise ValueError("times need at least two numbers, each of 0 to 1 (0 = noise, 1 = image).")
    return times


def _conditions(
    model: Model, cond: Condition, null: Condition | None, count: int
) -> tuple[Condition, Condition | None]:
    """Both conditions with a row for each image."""
    return expand_rows(cond, count), null_for(model, null, count)


def null_for(model: Model, null: Condition | None, count: int) -> Condition | None:
    """The given null condition with a row for each image; else the family's own, where it has one."""
    if null is not None:
        return expand_rows(null, count)
    return model.family.null(model.params, count) if model.family.null else None


def condition_velocities(
    velocity: Callable[[Tensor, float, Condition], Tensor], cond: Condition, null: Condition | None
) -> tuple[
    Callable[[Tensor, float], Tensor],
    Callable[[Tensor, float], tuple[Tensor, Tensor]] | None,
]:
    """What guidance takes: (x, t) -> conditional velocity, and (x, t) -> (null, conditional) or None.

    The pair is one call on twice the batch, null rows first; texts whose lengths cannot be joined take two calls.
    """

    def conditional(x: Tensor, t: float) -> Tensor:
        return velocity(x, t, cond)

    if null is None:
        return conditional, None
    both = concatenate(null, cond) if fit_together(null, cond) else None

    def pair(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        if both is None:
            return velocity(x, t, null), velocity(x, t, cond)
        v_null, v_cond = velocity(torch.cat([x, x]), t, both).chunk(2)
        return v_null, v_cond

    return conditional, pair


def _start(
    model: Model,
    given: Tensor | None,
    seeds: int | Sequence[int] | None,
    size: Size | None,
    rows: int,
    image: Tensor | None,
) -> Tensor:
    """The noise to start from, checked: one image per seed, or without seeds one per condition."""
    if given is None:
        if size is None:
            size = (image.shape[-2], image.shape[-1]) if image is not None else model.spec.default_size
        check_size(model.spec, *size)
        given = unit_noise(model, range(rows) if seeds is None else seeds, *size)
    check_size(model.spec, *given.shape[-2:])
    if image is not None and image.shape[-2:] != given.shape[-2:]:
        (height, width), (out_height, out_width) = image.shape[-2:], given.shape[-2:]
        raise ValueError(
            f"the image is {width} x {height} pixels (width x height), the output {out_width} x {out_height}. "
            "Scale or crop the image to that size."
        )
    start = given.to(model.device, torch.float32)
    scale = model.family.path(model.params).noise_scale
    return start if scale == 1 else scale * start


def _for_each(given: Tensor, start: Tensor, channels: int, what: str) -> Tensor:
    """An image or mask for each output."""
    count, _, height, width = start.shape
    if given.ndim != 4 or given.shape[1:] != (channels, height, width):
        raise ValueError(
            f"the {what} has shape {list(given.shape)}; expected [1 or {count}, {channels}, {height}, {width}]."
        )
    if len(given) not in (1, count):
        raise ValueError(f"there are {len(given)} {what}s to start from for {count} images; give one, or one each.")
    return given.to(start).expand(count, -1, -1, -1)


def _solver(name: str) -> Solver:
    if name not in SOLVERS:
        raise ValueError(f'solver "{name}" is not known; there are {", ".join(SOLVERS)}.')
    return SOLVERS[name]
