"""The model that a run starts from: initial weights as published, or a checkpoint."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..checkpoints.load import load_checkpoint
from ..families import FAMILIES, VARIANTS
from ..families.record import Family
from ..model import Model, build_model
from .class_table import set_classes
from .config import ModelConfig
from .initialize import initialize
from .operations import TrainingOperations

log = logging.getLogger(__name__)


def start_model(config: ModelConfig, class_names: Sequence[str] | None, seed: int) -> Model:
    """The model on the CPU, in float32, with the classes of the data.

    Args:
        class_names: of the data; None where it names none.
        seed: of initial weights.

    Raises:
        ValueError: an unknown family, variant or param; a checkpoint that cannot be read or is not what the recipe
            declares; classes that do not fit.
    """
    model = _build(config, seed) if config.start is None else _load(config)
    if model.family.condition == "class" and class_names is not None:
        if config.start is not None:
            return set_classes(model, class_names)
        if len(class_names) != model.params.num_classes:
            raise ValueError(
                f"the data has {len(class_names)} classes ({', '.join(class_names[:4])} ...), and the network "
                f"{model.params.num_classes}: set model.params.num_classes={len(class_names)}."
            )
        model.spec = dataclasses.replace(model.spec, class_names=tuple((name,) for name in class_names))
    return model


def _build(config: ModelConfig, seed: int) -> Model:
    if config.family is None or not (config.params or config.variant):
        raise ValueError(
            "the recipe does not say which network to train: set model.family and model.variant or model.params, or "
            "model.start to a checkpoint."
        )
    if config.family not in FAMILIES:
        raise ValueError(f'model.family "{config.family}" is not known; there are {", ".join(FAMILIES)}.')
    family = FAMILIES[config.family]
    model = build_model(family, find_params(family, config), device="cpu", operations=TrainingOperations)
    torch.manual_seed(seed)
    initialize(model)
    return model


def find_params(family: Family, config: ModelConfig) -> Any:
    """Sizes of a network that starts from initial weights: the variant's, and the recipe's over them.

    Raises:
        ValueError: an unknown variant or param, or one of the wrong type or missing.
    """
    given = plain_params(family, config.params)
    if config.variant is None:
        try:
            return family.params(**given)
        except TypeError as error:  # a size without a default is missing
            raise ValueError(f"model.params: {str(error).partition('() ')[2]} of {family.name}.") from error
    variant = VARIANTS.get(config.variant)
    if variant is None or variant.family != family.name:
        known = ", ".join(name for name, other in VARIANTS.items() if other.family == family.name)
        raise ValueError(f'model.variant "{config.variant}" is not known for {family.name}; there are {known}.')
    return dataclasses.replace(typing.cast(Any, variant.params), **given)


def plain_params(family: Family, values: Mapping[str, Any]) -> dict[str, Any]:
    """Params as YAML has them -> as the family takes them.

    Raises:
        ValueError: an unknown name (the nearest is named), or a value of the wrong type.
    """
    known = {field.name: field.default for field in dataclasses.fields(family.params)}
    hints = typing.get_type_hints(family.params)
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f'the nearest is "{near[0]}"' if near else f"there are {', '.join(known)}"
            raise ValueError(f"model.params.{name} is not a size of {family.name}; {hint}.")
        expected = {int: int, float: (int, float), bool: bool, str: str}.get(hints[name])
        if expected is not None and (
            not isinstance(value, expected) or (isinstance(value, bool) != (hints[name] is bool))
        ):
            raise ValueError(f"model.params.{name} is {value!r}; {family.name} takes a {hints[name].__name__} there.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _load(config: ModelConfig) -> Model:
    assert config.start is not None
    model = load_checkpoint(config.start, weights=config.weights, operations=TrainingOperations)
    if config.family is not None and config.family != model.family.name:
        raise ValueError(
            f"model.start {config.start} is {model.family.title} ({model.family.name}), and model.family says "
            f"{config.family}. Leave model.family out, or name another checkpoint."
        )
    declared = plain_params(model.family, config.params)
    if config.variant is not None and config.variant in VARIANTS:
        declared = dataclasses.asdict(typing.cast(Any, VARIANTS[config.variant].params)) | declared
    for name, value in declared.items():
        found = getattr(model.params, name)
        if value is not None and found != value and name != "num_classes":
            raise ValueError(
                f"model.start {config.start} has {name} {found}, and the recipe says {value}. Leave it out: sizes come "
                "from the checkpoint."
            )
    log.info("starting from %s, %s weights", config.start, model.spec.weights or "its")
    return model
