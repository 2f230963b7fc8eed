"""What a run would be, as text: its network, memory, length and work, from the recipe alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..families import VARIANTS, build_network
from ..model import Model, build_model
from ..sampling import check_size
from ..sizes import Size
from ..spec import ModelSpec
from .config import EngineConfig, ModelConfig, TrainConfig
from .data.open import find_buckets, open_data, read_class_names
from .data.order import GlobalBatchSampler
from .evaluate_command import check_balance, check_evaluate, check_files
from .memory import Estimate, estimate
from .start import planned_spec

RATE = 400e12  # FLOP/s in bfloat16 that a large network sustains on a GPU of the H100 class
GPUS = (24e9, 80e9)  # bytes of memory


def describe_run(config: TrainConfig) -> str:
    """Lines of a name and a value. Neither data, encoder nor GPU need be there: what is missing is a note.

    Raises:
        ValueError: a network that cannot be built, a size that is not for it, or scores that are not possible.
    """
    spec = planned_spec(config.model)
    size = _size(config, spec)
    check_size(spec, *size)
    check_evaluate(config, spec.family)
    found = estimate(spec, config, size)
    rows = _network(config, spec, size, found) | _memory(config, found) | _length(config, spec, size)
    return f"{config.title or 'a run'}\n{_table(rows | _work(config, found))}"


def _is_missing(start: str) -> bool:
    return not Path(start).exists()


def _start(config: ModelConfig) -> str:
    if config.start is None:
        return "initial weights"
    return f"{config.start}, which is not there yet" if _is_missing(config.start) else config.start


def _encoder(config: ModelConfig) -> str:
    if config.encoder is None:
        return "that of the start" if config.start else "model.encoder is not set"
    return f"{config.encoder}, which is not there yet" if _is_missing(config.encoder) else config.encoder


def _size(config: TrainConfig, spec: ModelSpec) -> Size:
    """Of the images; the largest of buckets."""
    buckets = find_buckets(config.data, spec)
    return buckets[-1] if buckets else config.data.size or spec.trained_sizes[0]


def _network(config: TrainConfig, spec: ModelSpec, size: Size, found: Estimate) -> dict[str, str]:
    variant = f", {config.model.variant}" if config.model.variant else ""
    trained = f", and {found.trained:,} of the LoRA, which alone are trained" if config.lora else ""
    buckets = "buckets up to " if config.data.buckets else ""
    frozen = f", {found.frozen:,} of them in the frozen encoder" if found.frozen else ""
    return {
        "network": f"{spec.family.title}{variant}: {spec.family.summary(spec.params)}",
        "start": _start(config.model),
        **({"encoder": _encoder(config.model)} if spec.family.encoder else {}),
        "images": f"{buckets}{size[1]} x {size[0]} pixels, {_colors(spec.params.in_channels)}",
        "parameters": f"{found.parameters:,}{frozen}{trained}",
    }


def _memory(config: TrainConfig, found: Estimate) -> dict[str, str]:
    """Of one process that holds all weights."""
    engine = config.engine
    parts = {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "averages": found.averages,
        "bf16 copies": found.casts,
    }
    images = min(engine.micro_batch or engine.batch_size, engine.batch_size)
    most = ", ".join(f"{found.largest_micro_batch(memory):,} on {memory / 1e9:.0f} GB" for memory in GPUS)
    rows = {
        "memory": f"{byte_text(found.fixed)} + {byte_text(found.activations)} for each image of a micro-batch"
        f" ({engine.precision}{', activation checkpointing' if engine.activation_checkpointing else ''})",
        "": ", ".join(f"{name} {byte_text(value)}" for name, value in parts.items() if value),
        "micro-batch": f"{images:,} images need {byte_text(found.total(images))}; at most {most}",
    }
    if config.objective.repa is not None:
        rows["not counted"] = f"the encoder {config.objective.repa.encoder} and its projector"
    return rows


def _length(config: TrainConfig, spec: ModelSpec, size: Size) -> dict[str, str]:
    engine = config.engine
    rows = {
        "batch": f"{engine.batch_size:,} images for each step",
        "steps": f"{engine.steps:,}, {engine.steps * engine.batch_size:,} images",
        "epochs": _epochs(config, spec, size),
    }
    return rows | ({"scores": _scores(config, spec)} if engine.evaluate_every else {})


def _scores(config: TrainConfig, spec: ModelSpec) -> str:
    evaluate, every = config.evaluate, config.engine.evaluate_every
    times = -(-config.engine.steps // every)  # the last step counts
    text = (
        f"{times:,}, every {every:,} steps: {evaluate.count:,} images against {evaluate.reference}, "
        f"{evaluate.extractor}, on {evaluate.device or 'the device of the run'}"
    )
    try:
        check_files(evaluate)
        if spec.family.condition == "class" and config.model.start is None:  # the data may add classes to a start's
            check_balance(evaluate, spec.params.num_classes)
    except ValueError as error:
        return f"{text}; {error}"
    return text


def _epochs(config: TrainConfig, spec: ModelSpec, size: Size) -> str:
    """How often each image is seen, if the data is there."""
    if not config.data.path or not (Path(config.data.path).exists() or config.data.kind == "webdataset"):
        return f"not known: data.path {config.data.path or 'is not set'}{' is not there' if config.data.path else ''}"
    try:
        names = config.model.class_names or read_class_names(config.data) or ()
        model = Model(spec, build_network(spec.family, spec.params))
        data = open_data(config.data, model, size, {name: label for label, name in enumerate(names)})
        order = GlobalBatchSampler(
            data.sizes(), config.engine.batch_size, config.engine.seed, drop_last=config.data.drop_last
        )
    except (ValueError, OSError, ImportError) as error:
        return f"not known: {error}"
    return (
        f"{config.engine.steps / order.steps_per_epoch:.4g} of {len(data):,} images, {order.steps_per_epoch:,} steps "
        "each"
    )


def _work(config: TrainConfig, found: Estimate) -> dict[str, str]:
    step = found.flops * config.engine.batch_size
    seconds = step / RATE
    return {
        "work": f"{flop_text(found.flops)} for each image, {flop_text(step)} for each step",
        f"at {RATE / 1e12:.0f} TFLOP/s": f"{_duration(seconds)} for each step, "
        f"{_duration(seconds * config.engine.steps)} for the run",
    }


def memory_table(variants: Iterable[tuple[str, int]]) -> str:
    """Markdown with a row for each variant and side of its images: AdamW, one average, bf16.

    Two numbers are without and with activation checkpointing.
    """
    lines = [
        "| network | images | parameters | fixed | for each image | work for each image | images on 24 GB | on 80 GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, side in variants:
        variant = VARIANTS[name]
        spec = build_model(variant.family, name).spec
        plain, less = (estimate(spec, TrainConfig(engine=_bf16(value)), (side, side)) for value in (False, True))
        batches = (
            " / ".join(f"{_count_text(each.largest_micro_batch(memory))}" for each in (plain, less)) for memory in GPUS
        )
        cells = [
            name,
            f"{side} x {side}",
            f"{plain.parameters / 1e6:,.4g} M",
            byte_text(plain.fixed),
            f"{byte_text(plain.activations)} / {byte_text(less.activations)}",
            f"{flop_text(plain.flops)} / {flop_text(less.flops)}",
            *batches,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _count_text(count: int) -> str:
    return f"{count:,}" if count else "-"


def _bf16(checkpointing: bool) -> EngineConfig:
    return EngineConfig(precision="bf16", activation_checkpointing=checkpointing)


def byte_text(count: float) -> str:
    """A number of bytes with three digits, in units of 1000."""
    return _with_unit(count, ("TB", "GB", "MB", "kB"))


def flop_text(count: float) -> str:
    """A number of floating-point operations with three digits."""
    return _with_unit(count, ("TFLOP", "GFLOP", "MFLOP", "kFLOP"))


def _with_unit(count: float, units: tuple[str, ...]) -> str:
    """The largest unit of which there is at least one; the units are 1e12 and down to 1e3."""
    unit, size = next(
        ((unit, size) for unit, size in zip(units, (1e12, 1e9, 1e6), strict=False) if count >= size), (units[-1], 1e3)
    )
    return f"{_three_digits(count / size)} {unit}"


def _colors(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{seconds:.2g} s"


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows)) + 2
    return "".join(f"  {name.ljust(width)}{value}\n" for name, value in rows.items())
