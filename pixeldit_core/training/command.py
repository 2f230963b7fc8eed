"""What the command `train` does: start, resume or describe a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from .config import TrainConfig
from .engine import Engine
from .recipe import read_recipe, to_values
from .report import describe_run
from .run import Run
from .run_folder import RunFolder, find_run
from .setup import set_up

log = logging.getLogger(__name__)

_FIXED = ("model", "lora", "objective", "data")  # sections of which a resumed run changes nothing but its speed
_FREE = {"data.path", "data.workers", "data.text_states"}


def start(recipe: Path, overrides: Sequence[str], out: Path | None) -> str:
    """Train from the first step; a line about what came of it.

    Raises:
        ValueError: a recipe, model, data or folder that cannot be used.
    """
    config = read_recipe(recipe, overrides)
    folder = RunFolder(out or Path("runs") / recipe.stem)
    if folder.steps():
        raise ValueError(
            f"{folder.path} has a run already, saved after step {folder.steps()[-1]}. Go on with --resume "
            f"{folder.path}, or name another folder: --out."
        )
    return _train(config, folder, resume=False)


def resume(path: Path, overrides: Sequence[str]) -> str:
    """Train from the newest saved step.

    Raises:
        ValueError: no run there, or overrides that would make it another one.
    """
    folder = find_run(path)
    saved, config = read_recipe(folder.recipe), read_recipe(folder.recipe, overrides)
    before, after = to_values(saved), to_values(config)
    for section in _FIXED:
        changed = [key for key in _changes(before[section], after[section], section) if key not in _FREE]
        if changed:
            raise ValueError(
                f"{changed[0]} cannot change when {path} is resumed: it would be another run. Start one with "
                f"model.start={folder.model}."
            )
    return _train(config, folder, resume=True)


def _changes(before: object, after: object, key: str) -> list[str]:
    """Dotted keys whose values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        return [key_ for name in names for key_ in _changes(before.get(name), after.get(name), f"{key}.{name}")]
    return [] if before == after else [key]


def _train(config: TrainConfig, folder: RunFolder, *, resume: bool) -> str:
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    setup = set_up(config)
    folder.prepare()
    engine = Engine(setup.config)
    run = Run(setup, engine, folder, resume=resume)
    if run.is_done:
        return f"{folder.path} has made its {run.step} steps. Raise engine.steps to go on.\n"
    run.train()
    if not engine.is_main:
        return ""
    written = folder.lora if config.lora is not None else folder.model
    scores = f"scores: {folder.scores}\n" if folder.scores.is_file() else ""
    return f"{written}\nloss curve: {folder.curve}\nlog: {folder.log}\n{scores}"


def describe(recipe: Path, overrides: Sequence[str]) -> str:
    """What a run would be, without starting it.

    Raises:
        ValueError: a recipe or network that cannot be used; missing data is a note in the text.
    """
    return describe_run(read_recipe(recipe, overrides))
