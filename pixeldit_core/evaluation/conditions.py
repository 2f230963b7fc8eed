"""Conditions of a plan's entries: classes, or prompts whose states were encoded before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..conditions import class_condition
from ..labels import Names, find_class
from ..model import Condition, Model
from ..text_states.states import TextStates, encode_command, open_states
from .generate import Conditions


def class_conditions(model: Model) -> Conditions:
    """Entries are classes; the null condition is the family's own."""

    def conditions(entries: Sequence[int]) -> tuple[Condition, Condition | None]:
        return class_condition(model, list(entries)), None

    return conditions


def prompt_conditions(prompts: Sequence[str], states: TextStates) -> Conditions:
    """Entries are numbers of prompts; the null condition is the encoding of ""."""

    def conditions(entries: Sequence[int]) -> tuple[Condition, Condition | None]:
        batch, null = states.batch([prompts[entry] for entry in entries]), states.null
        return (batch[0], null[0]) if states.parts == ("embeds",) else (batch, null)

    return conditions


def read_labels(path: Path, num_classes: int, names: Names | None) -> tuple[int, ...]:
    """One class a line, as numbers or names; empty lines are left out.

    Raises:
        ValueError: no file, nothing in it, or a line that is no class.
    """
    labels: list[int] = []
    for number, line in enumerate(_read_lines(path), start=1):
        if line.strip():
            try:
                labels.append(find_class(line, num_classes, names))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not labels:
        raise ValueError(f"{path} has no labels. Write one class a line, such as 207.")
    return tuple(labels)


def read_prompts(path: Path) -> list[str]:
    """One prompt a line, without white space around it, as the command `encode` reads them; no empty ones.

    Raises:
        ValueError: no file, or nothing in it.
    """
    prompts = [line.strip() for line in _read_lines(path) if line.strip()]
    if not prompts:
        raise ValueError(f"{path} has no prompts. Write one a line.")
    return prompts


def open_prompts(model: Model, path: Path | None, folder: Path | None) -> tuple[list[str], TextStates]:
    """The prompts of a file, and their states.

    Raises:
        ValueError: no file or folder, no prompts, or prompts without states; says how to encode them.
    """
    if path is None or folder is None:
        where = path or "prompts.txt"
        raise ValueError(
            f"{model.spec.source} is {model.family.title}, which needs prompts and their text states. Write one prompt "
            f"a line into a file, encode it ({encode_command(model.family, folder or 'states', str(where))}), then "
            f"give --prompts {where} --text-states {folder or 'states'}."
        )
    prompts = read_prompts(path)
    return prompts, open_states(folder, model, prompts, str(path))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as text in UTF-8 ({error}). Name a text file, one entry a line."
        ) from error
