"""The part of `evaluate` that generates: from options to a folder of images."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

from ..atomic import explain_write_error
from ..checkpoints.encoder_choice import NONE
from ..checkpoints.load import load_checkpoint
from ..checkpoints.locate import find_source
from ..checkpoints.lora import apply_lora, find_lora_file
from ..checkpoints.save import hashes
from ..dtypes import dtype_name
from ..evaluation.archive import NAME as ARCHIVE
from ..evaluation.archive import write_archive
from ..evaluation.conditions import class_conditions, open_prompts, prompt_conditions, read_labels
from ..evaluation.generate import Job, generate_images
from ..evaluation.image_folder import ImageFolder
from ..evaluation.image_source import archive_shape
from ..evaluation.plan import Plan
from ..evaluation.processes import Processes
from ..evaluation.progress import Progress
from ..evaluation.run_record import open_run
from ..labels import parse_classes
from ..model import Model
from ..text_states.shards import read_index
from .options import say_emulated
from .sampling_options import choose_settings
from .text import describe_compiled, describe_settings, table

_BATCH_PIXELS = {"cpu": 2**19}  # in one batch, by default
_OTHER_PIXELS = 2**21
_LARGEST_BATCH = 64
_MOST_NAMES = 200  #              of classes that run.json lists


def make_images(options: argparse.Namespace, processes: Processes, out: Path) -> tuple[Path, str, bool]:
    """Generate what is missing; the folder, what to print, and whether all images are there now.

    Raises:
        ValueError: options, a checkpoint or a folder that cannot be used; a disk that is full.
        KeyboardInterrupt: stopped; says how many images are finished.
    """
    model = open_model(options, processes)
    job = build_job(model, options)
    return run_job(job, options, processes, out, identify(job, options, checkpoint_hashes(options, processes)))


def open_model(options: argparse.Namespace, processes: Processes) -> Model:
    """The checkpoint on this process's device, with its LoRAs."""
    model = load_checkpoint(
        options.checkpoint, processes.device, options.dtype, options.weights, encoder=options.encoder
    )
    for file, strength in options.lora:
        apply_lora(model, find_lora_file(file)[0], strength)
    return model


def build_job(model: Model, options: argparse.Namespace) -> Job:
    """What is generated.

    Raises:
        ValueError: settings, classes or prompts that the model does not have.
    """
    settings, _ = choose_settings(model, options)
    if model.family.condition == "class":
        for name in ("prompts", "text_states"):
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is for text-to-image; {model.spec.source} takes classes: use --classes.")
        entries, conditions = _choose_entries(model, options), class_conditions(model)
    else:
        for name in ("classes", "labels"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for classes; {model.spec.source} takes prompts: use --prompts.")
        prompts, states = open_prompts(model, options.prompts, options.text_states)
        entries, conditions = tuple(range(len(prompts))), prompt_conditions(prompts, states)
    plan = Plan(options.count, entries, options.first_seed)
    if not options.unbalanced:
        plan.check_balance()
    return Job(model, plan, conditions, settings, options.convention, options.autocast, options.compile)


def _choose_entries(model: Model, options: argparse.Namespace) -> tuple[int, ...]:
    count, names = model.params.num_classes, model.class_names
    if options.labels is not None:
        if options.classes is not None:
            raise ValueError("give --classes or --labels, not both.")
        return read_labels(options.labels, count, names)
    if options.classes is not None:
        return tuple(parse_classes(options.classes, count, names))
    return tuple(range(count))


def checkpoint_hashes(options: argparse.Namespace, processes: Processes) -> dict[str, Any]:
    """SHA-256 of the checkpoint's files, LoRAs and a given encoder; only the main process reads them for it."""
    if not processes.is_main:
        return {}
    files = hashes(*find_source(options.checkpoint).files)
    loras = [{**hashes(find_lora_file(file)[0]), "strength": strength} for file, strength in options.lora]
    encoder = options.encoder
    if encoder is not None and encoder != NONE:
        encoder = hashes(*find_source(encoder).files)
    return {
        "files": files,
        **({"loras": loras} if loras else {}),
        **({} if encoder is None else {"encoder": encoder}),
    }


def identify(job: Job, options: argparse.Namespace, files: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the images, but their count; plain values for run.json."""
    model = job.model
    texts: dict[str, Any] = {}
    if options.prompts is not None:
        texts = {"prompts_sha256": hashlib.sha256(options.prompts.read_bytes()).hexdigest()}
        index = read_index(options.text_states)
        assert index is not None, "the states were opened before"
        texts["text_states"] = {**dataclasses.asdict(index.info), "encoder": Path(index.info.encoder).name}
    names = [entry[0] for entry in model.class_names or ()]
    return {
        "checkpoint": {"name": model.spec.source, "weights": model.spec.weights, **files},
        "family": model.family.name,
        "settings": job.settings.to_dict(),
        "convention": job.convention,
        "shape": list(job.shape),
        "plan": job.plan.to_dict() | texts,
        "classes": len(set(job.plan.entries)) if model.family.condition == "class" else None,
        "class_names": names if 0 < len(names) <= _MOST_NAMES else None,
        "dtype": dtype_name(model.dtype)
        + (", bfloat16 autocast" if job.autocast else "")
        + (", compiled" if job.compile else ""),
        "device": model.device.type,
    }


def run_job(
    job: Job, options: argparse.Namespace, processes: Processes, out: Path, identity: dict[str, Any]
) -> tuple[Path, str, bool]:
    """Generate one plan into one folder; arguments and results as of `make_images`."""
    started, count = time.monotonic(), job.plan.count
    if processes.is_main:
        if options.npz or options.npz_only:
            _keep_larger_archive(ImageFolder(out, job.shape), count, out / ARCHIVE)
        counts = job.plan.counts().values()
        open_run(out, identity, {"count": count, "balanced": len(set(counts)) == 1})
        say_emulated(job.model.dtype, job.model.device)
    processes.wait()
    folder, archive = ImageFolder(out, job.shape), out / ARCHIVE
    if options.npz_only and archive_shape(archive) == (count, *job.shape) and not (out / "images").exists():
        return out, f"{archive} has all {count:,} images already.\n", True
    before = folder.count(count)
    _generate_share(job, options, processes, folder)
    there = folder.count(count)
    absent = count - there
    if not processes.is_main:
        return out, "", not absent
    rows = _describe(job, folder, there - before, time.monotonic() - started)
    if absent:
        rows["images"] = f"{there:,} of {count:,}: the other parts make the rest"
    if not absent:
        folder.clear_parts()
    if not absent and (options.npz or options.npz_only):
        rows["archive"] = _write_npz(folder, count, archive, only=options.npz_only)
    return out, table(rows), not absent


def _generate_share(job: Job, options: argparse.Namespace, processes: Processes, folder: ImageFolder) -> None:
    part, parts = options.shard
    size = batch_size(options, job)
    batches = job.plan.batches(size, part * processes.count + processes.rank, parts * processes.count)
    try:
        with Progress(folder, job.plan.count, shown=processes.is_main) as progress:
            generate_images(job, folder, batches, progress)
            processes.wait()  # the bar shows what the others do
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped: {_finished(job, folder)}. The same command continues.") from None
    except OSError as error:
        reason, way_out = explain_write_error(error, folder.path)
        raise ValueError(
            f"{folder.path} could not be written to: {reason}. {_finished(job, folder)}, each of them whole. {way_out} "
            "Then run the same command again."
        ) from error


def batch_size(options: argparse.Namespace, job: Job) -> int:
    """Images at a time: those asked for, or by size and kind of device."""
    if options.batch_size is not None:
        return options.batch_size
    pixels = _BATCH_PIXELS.get(job.model.device.type, _OTHER_PIXELS)
    return min(_LARGEST_BATCH, max(1, pixels // (job.shape[0] * job.shape[1])))


def _finished(job: Job, folder: ImageFolder) -> str:
    count = job.plan.count
    return f"{folder.count(count):,} of {count:,} images are finished"


def _write_npz(folder: ImageFolder, count: int, path: Path, *, only: bool) -> Path:
    write_archive(folder, count, path)
    if only:
        folder.remove(count)
    return path


def _keep_larger_archive(folder: ImageFolder, count: int, path: Path) -> None:
    """Raises ValueError if the only copy of more images would be replaced by one of `count`."""
    stored = archive_shape(path)
    if stored is not None and stored[0] > count and folder.count(stored[0]) < stored[0]:
        raise ValueError(
            f"{path} has {stored[0]:,} images, which are nowhere else, and --count is {count:,}: it would replace them."
            " Name another folder with --out, or move the file away."
        )


def _describe(job: Job, folder: ImageFolder, made: int, seconds: float) -> dict[str, Any]:
    model, settings = job.model, job.settings
    averaged = ", averaged weights" if model.spec.weights == "ema" else ""
    return {
        "model": f"{model.spec.source} ({model.family.title}{averaged})",
        "settings": describe_settings(settings),
        "images": f"{job.plan.count:,} in {folder.path / 'images'}",
        "made now": f"{made:,} in {seconds:,.1f} s, on {model.device}",
        **describe_compiled(model),
    }
