"""A class table that grows, shrinks or is put in another order, for fine-tuning on other classes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ..families import build_network
from ..labels import Names
from ..model import Model, build_model
from ..text import shorten_list
from .operations import TrainingOperations

log = logging.getLogger(__name__)

_SHOWN = 8  # names in a message


def set_classes(model: Model, names: Sequence[str]) -> Model:
    """The model with these classes.

    A class keeps the row of the class of its name or, where the model has no names, of its number. A new class starts
    from the mean of all. The null class stays last.

    Raises:
        ValueError: a name that several classes of the model share.
    """
    count = model.params.num_classes
    known = model.class_names
    rows = find_rows(known, names) if known else _same_numbers(count, len(names))
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    if new:
        log.info("%d new classes, from the mean of all: %s", len(new), shorten_list(new, _SHOWN))
    entries = tuple(
        (name,) if known is None or row is None or rows.count(row) > 1 else tuple(known[row])
        for name, row in zip(names, rows, strict=True)
    )
    return take_rows(model, rows, entries)


def set_class_count(model: Model, count: int) -> Model:
    """The model with classes 0 to `count` - 1, which keep their rows; those beyond its own start from the mean."""
    known, rows = model.class_names, _same_numbers(model.params.num_classes, count)
    return take_rows(model, rows, known if count == model.params.num_classes else None)


def find_rows(known: Names, names: Sequence[str]) -> list[int | None]:
    """For each name the class that has it; None = none. Case does not matter, nor "_" in place of a space.

    The first name of a class goes before the other names of another; of classes that share a name, the one at the same
    place is meant.

    Raises:
        ValueError: a name that several classes share, none at its place.
    """
    first, every = _by_name([entry[:1] for entry in known]), _by_name(known)
    rows: list[int | None] = []
    for place, name in enumerate(names):
        found = first.get(_plain(name)) or every.get(_plain(name), [])
        if len(found) > 1 and place not in found:
            choices = ", ".join(f"{index}: {' / '.join(known[index])}" for index in found)
            raise ValueError(
                f'class "{name}" of the data is the name of several classes of model.start ({choices}): call it by '
                "another name of the one that you mean."
            )
        rows.append(place if place in found else found[0] if found else None)
    return rows


def take_rows(model: Model, rows: Sequence[int | None], names: Names | None) -> Model:
    """The model with these classes: each one of its own by number, or None, which starts from the mean of all.

    The null class stays last. The model itself if nothing but names changes.
    """
    if list(rows) == list(range(model.params.num_classes)):
        model.spec = dataclasses.replace(model.spec, class_names=names)
        return model
    params = dataclasses.replace(model.params, num_classes=len(rows))
    other = build_model(model.family, params, operations=TrainingOperations)
    tables = class_tables(model)
    state = {key: _select(value, rows) if key in tables else value for key, value in model.network.state_dict().items()}
    other.network.load_state_dict(state, assign=True)
    other.spec = dataclasses.replace(model.spec, params=params, class_names=names)
    return other


def class_tables(model: Model) -> frozenset[str]:
    """The parameters with a row [...] for each class and for the null class: those that one more class makes longer."""
    params = dataclasses.replace(model.params, num_classes=model.params.num_classes + 1)
    longer = build_network(model.family, params).state_dict()
    tables = {key: value for key, value in model.network.state_dict().items() if longer[key].shape != value.shape}
    for key, value in tables.items():
        assert longer[key].shape == (len(value) + 1, *value.shape[1:]), f"{key} is no table of classes"
    return frozenset(tables)


def _same_numbers(old: int, new: int) -> list[int | None]:
    return [index if index < old else None for index in range(new)]


def _by_name(known: Names) -> dict[str, list[int]]:
    """Classes by name."""
    found: dict[str, list[int]] = {}
    for index, entry in enumerate(known):
        for name in dict.fromkeys(map(_plain, entry)):
            found.setdefault(name, []).append(index)
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().lower()


def _select(table: Tensor, rows: Sequence[int | None]) -> Tensor:
    """Rows of a table [classes + 1, ...] whose last is the null class."""
    mean = table[:-1].mean(dim=0)
    return torch.stack([*(mean if row is None else table[row] for row in rows), table[-1]])
