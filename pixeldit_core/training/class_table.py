"""A class table that grows, shrinks or is put in another order, for fine-tuning on other classes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ..labels import Names
from ..model import Model, build_model
from .operations import TrainingOperations

log = logging.getLogger(__name__)

TABLES = ("y_embedder.embedding_table.weight", "class_embed.weight", "class_registers")  # of the families of classes


def set_classes(model: Model, names: Sequence[str]) -> Model:
    """The model with these classes.

    A class keeps the row of the class of its name or, where the model has no names, of its number. A new class starts
    from the mean of all rows. The null class stays last.
    """
    known = model.class_names
    rows = row_sources(known, model.params.num_classes, names)
    entries: Names = tuple(
        (name,) if row is None or known is None else known[row] for name, row in zip(names, rows, strict=True)
    )
    if rows == list(range(model.params.num_classes)):
        model.spec = dataclasses.replace(model.spec, class_names=entries)
        return model
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    if new:
        log.info("new classes, from the mean of all: %s", ", ".join(new))
    params = dataclasses.replace(model.params, num_classes=len(names))
    other = build_model(model.family, params, device="cpu", operations=TrainingOperations)
    state = {key: _select(value, rows) if key in TABLES else value for key, value in model.network.state_dict().items()}
    other.network.load_state_dict(state, assign=True)
    other.spec = dataclasses.replace(model.spec, params=params, class_names=entries)
    return other


def row_sources(known: Names | None, count: int, names: Sequence[str]) -> list[int | None]:
    """For each of the new classes the row that it takes over; None = a new one."""
    if known is None:
        return [index if index < count else None for index in range(len(names))]
    index_of = {name: index for index, entry in reversed(list(enumerate(known))) for name in entry}
    # two classes may share a name: then its place decides
    return [i if i < count and name in known[i] else index_of.get(name) for i, name in enumerate(names)]


def _select(table: Tensor, rows: Sequence[int | None]) -> Tensor:
    """Rows of a table [classes + 1, ...] whose last is the null class."""
    mean = table[:-1].mean(dim=0)
    return torch.stack([*(mean if row is None else table[row] for row in rows), table[-1]])
