"""The frozen encoder inside of a network, as training sees it: loaded, looked through, never trained or averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import nn

from ..checkpoints.metadata import DEPTH
from ..families.record import Family
from ..model import Model
from ..spec import ModelSpec


def is_frozen(family: Family, name: str) -> bool:
    """Whether a module, parameter or buffer of a network is of the family's frozen encoder, by its name."""
    return bool(family.encoder) and f"{name}.".startswith(f"{family.encoder}.")


def trainable(model: Model) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a network, by name, without those of its frozen encoder."""
    return ((name, p) for name, p in model.network.named_parameters() if not is_frozen(model.family, name))


def has_encoder(model: Model) -> bool:
    """Whether the frozen encoder of a network is there."""
    return any(is_frozen(model.family, name) for name, _ in model.network.named_parameters())


def set_trainable(model: Model) -> None:
    """Let gradients through to every parameter but those of the frozen encoder."""
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(not is_frozen(model.family, name))


def without_encoder(spec: ModelSpec) -> ModelSpec:
    """The spec of a file that has no frozen encoder inside."""
    if not spec.family.encoder:
        return spec
    return dataclasses.replace(spec, params=dataclasses.replace(spec.params, **{DEPTH: 0}))
