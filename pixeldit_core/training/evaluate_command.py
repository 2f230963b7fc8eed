"""The command `evaluate` as a recipe asks for it: what is checked before the run, its words and its environment."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..families.record import Family
from .config import EvaluateConfig, TrainConfig

# what launchers give the processes of a run: with these, the command would take itself for one of them
_LAUNCHER = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
}  # fmt: skip
_LAUNCHER_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMI_")
_SECTION = {"--count", "--reference", "--extractor", "--extractor-weights", "--batch-size", "--device"}
_OTHER_USE = {"--out", "--score", "--save-statistics", "--sweep", "--shard"}
_CLASSES = {"--classes", "--labels", "--unbalanced"}  # each changes what the count must divide into
_PROMPTS = {"--prompts", "--text-states"}
_NEED_WEIGHTS = ("inception", "classifier", "vgg16")


def check_evaluate(config: TrainConfig, family: Family) -> None:
    """Whether the recipe's scores are possible.

    Raises:
        ValueError: a LoRA, no reference, a device that is none, options that the recipe has keys for or that ask for
            something else, a text family without prompts.
    """
    if not config.engine.evaluate_every:
        return
    evaluate, off = config.evaluate, "or set engine.evaluate_every=0"
    if config.lora is not None:
        raise ValueError(
            "engine.evaluate_every: the file of a LoRA is no checkpoint that `evaluate` can open. Set "
            "engine.evaluate_every=0, and merge and evaluate the LoRA after the run: convert --lora, then evaluate."
        )
    if not evaluate.reference:
        raise ValueError(f"engine.evaluate_every needs images to compare with: set evaluate.reference, {off}.")
    _check_device(evaluate.device)
    words = _names(evaluate)
    for word in sorted(words & _SECTION):
        key = word[2:].replace("-", "_")
        raise ValueError(f"evaluate.options has {word}, for which there is a key: set evaluate.{key}.")
    for word in sorted(words & _OTHER_USE):
        raise ValueError(f"evaluate.options has {word}: a run scores all images of one model, in its own folder.")
    if family.condition == "text" and not words >= _PROMPTS:
        raise ValueError(
            f"{family.title} generates from prompts: add --prompts FILE and --text-states DIR, which the command "
            f"encode writes, to evaluate.options, {off}."
        )


def check_balance(config: EvaluateConfig, classes: int) -> None:
    """Raises ValueError unless each class of the model gets as many images."""
    below = config.count - config.count % classes
    if below == config.count or _names(config) & _CLASSES:
        return
    nearest = f"{below} or {below + classes}" if below else f"{classes}"
    raise ValueError(
        f"evaluate.count {config.count} does not divide into {classes} classes: set {nearest}, or add --unbalanced to "
        "evaluate.options."
    )


def check_files(config: EvaluateConfig) -> None:
    """Whether the files are there that the command will read.

    Raises:
        ValueError: one of them is not or was not named, or the reference is neither a folder nor an .npz file.
    """
    reference = Path(config.reference)
    if not reference.exists():
        raise ValueError(f"evaluate.reference {reference} is not there; expected a folder of images or an .npz file.")
    if not reference.is_dir() and reference.suffix != ".npz":
        raise ValueError(f"evaluate.reference {reference} is neither a folder of images nor an .npz file.")
    if config.extractor_weights is None:
        if config.extractor in _NEED_WEIGHTS:
            raise ValueError(
                f"evaluate.extractor_weights is not set: the extractor {config.extractor} needs its file, and nothing "
                "is downloaded."
            )
    elif not Path(config.extractor_weights).is_file():
        raise ValueError(
            f"evaluate.extractor_weights {config.extractor_weights} is not there; expected the file of the extractor "
            f"{config.extractor}."
        )


def _names(config: EvaluateConfig) -> set[str]:
    """Words of the options without their values."""
    return {str(word).partition("=")[0] for word in config.options}


def _check_device(name: str | None) -> None:
    try:
        torch.device(name or "cpu")
    except RuntimeError as error:
        raise ValueError(f'evaluate.device "{name}" is not a device; write cpu, cuda or cuda:7.') from error


def command_words(config: EvaluateConfig, model: Path, folder: Path, device: str) -> list[str]:
    """What follows "evaluate" for one model; `device` unless the recipe names one."""
    given = {
        "--count": config.count,
        "--out": folder,
        "--reference": config.reference,
        "--extractor": config.extractor,
        "--extractor-weights": config.extractor_weights,
        "--batch-size": config.batch_size,
        "--device": config.device or device,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return [str(model), *words, *map(str, config.options)]


def environment() -> dict[str, str]:
    """That of this process, for one that is not of the run's own and has this very package."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "ACCELERATE_USE_CPU" or (name not in _LAUNCHER and not name.startswith(_LAUNCHER_PREFIXES))
    }
    package = str(Path(__file__).resolve().parents[2])
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))}
