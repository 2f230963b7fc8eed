"""The model that a run starts from: initial weights as published, or a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.encoder_file import read_encoder_header
from ..checkpoints.encoder_needed import title_of, where_to_get
from ..checkpoints.inspect import CheckpointInfo, inspect_checkpoint
from ..checkpoints.load import load_checkpoint, read_weights
from ..checkpoints.metadata import DEPTH
from ..checkpoints.save import with_chosen_encoder
from ..families import FAMILIES, VARIANTS, build_network, find_family
from ..families.record import Family
from ..model import Model, build_model
from ..spec import ModelSpec
from .class_table import set_class_count, set_classes
from .config import ModelConfig
from .initialize import initialize
from .operations import TrainingOperations
from .params import plain_params

log = logging.getLogger(__name__)

_REPLACED = ("num_classes", DEPTH)  # sizes of a start that the data's classes and another encoder change


def start_model(
    config: ModelConfig, class_names: Sequence[str] | None, seed: int, *, keep_classes: bool = False
) -> Model:
    """The model on the CPU, in float32, with the classes of the data, and with the frozen encoder if it has one.

    Args:
        class_names: of the data; None where it names none, or where the model's own shall stay.
        seed: of initial weights.
        keep_classes: refuse to add or remove classes of a checkpoint.

    Raises:
        ValueError: an unknown family, variant or param; a checkpoint that cannot be read or is not what the recipe
            declares; classes that do not fit.
    """
    model = _build(config, seed) if config.start is None else _load(config)
    if model.family.condition != "class":
        return model
    declared = config.params.get("num_classes", model.params.num_classes)
    if (
        class_names is not None
        and len(class_names) != declared
        and (config.start is None or "num_classes" in config.params)
    ):
        raise ValueError(
            f"the data has {len(class_names)} classes ({', '.join(class_names[:4])} ...), and the network "
            f"{declared}: set model.params.num_classes={len(class_names)}."
        )
    if config.start is None:
        if class_names is not None:
            model.spec = dataclasses.replace(model.spec, class_names=tuple((name,) for name in class_names))
        return model
    if keep_classes and declared != model.params.num_classes:
        raise ValueError(
            f"model.start {config.start} has {model.params.num_classes} classes, and the recipe says {declared}. A "
            "LoRA adds no classes: leave num_classes out, or fine-tune the whole network with lora=null."
        )
    return set_class_count(model, declared) if class_names is None else set_classes(model, class_names)


def planned_spec(config: ModelConfig) -> ModelSpec:
    """The model of a recipe, without weights: as declared where the checkpoint to start from is not there yet.

    Raises:
        ValueError: as `start_model`.
    """
    declared = config.family is not None and bool(config.params or config.variant)
    if config.start is None or (declared and not Path(config.start).exists()):
        return _with_planned_encoder(build_model(*_network(config)).spec, config)
    info = inspect_checkpoint(config.start)
    if info.spec is None:
        return read_weights(config.start, config.weights, _open(config, info)).spec
    given = _open(config, info)
    if "num_classes" in config.params:
        given["num_classes"] = config.params["num_classes"]
    return _with_planned_encoder(
        dataclasses.replace(info.spec, params=dataclasses.replace(info.params, **given)), config
    )


def _with_planned_encoder(spec: ModelSpec, config: ModelConfig) -> ModelSpec:
    """The spec with the encoder of the recipe's file; where that is not there yet, of the published depth.

    Raises:
        ValueError: the file is no encoder, or one that does not fit.
    """
    if not spec.family.encoder or (config.encoder is None and spec.params.encoder_depth):
        return spec
    width = spec.params.encoder_dim
    if config.encoder is not None and Path(config.encoder).exists():
        header = read_encoder_header(config.encoder)
        header.check_width(width, spec.source or "the network of the recipe")
        depth = header.names.depth
    else:
        depth = spec.params.encoder_depth or spec.family.params.encoder_depth  # the default
    return dataclasses.replace(spec, params=dataclasses.replace(spec.params, **{DEPTH: depth}))


def _build(config: ModelConfig, seed: int) -> Model:
    model = build_model(*_network(config), device="cpu", operations=TrainingOperations)
    torch.manual_seed(seed)
    initialize(model)
    return _with_encoder(model, config.encoder)


def _with_encoder(model: Model, encoder: str | None) -> Model:
    """A model of initial weights with the encoder of a file, which initial weights cannot replace."""
    family = model.family
    if not family.encoder:
        if encoder is not None:
            raise ValueError(f"model.encoder is {encoder}, and {family.title} looks through no encoder: leave it out.")
        return model
    if encoder is None:
        width = model.params.encoder_dim
        raise ValueError(
            f"model.encoder is not set: {family.title} looks at its own input through {title_of(width)}, which stays "
            f"frozen while the rest is trained. {where_to_get(width)} Then set model.encoder to the file."
        )
    if not Path(encoder).exists():
        raise ValueError(f"model.encoder {encoder} is not there. {where_to_get(model.params.encoder_dim)}")
    spec = dataclasses.replace(model.spec, source="the network of the recipe")
    spec, tensors = with_chosen_encoder(spec, model.network.state_dict(), encoder)
    other = build_model(family, spec.params, operations=TrainingOperations)
    other.network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return other


def _network(config: ModelConfig) -> tuple[Family, Any]:
    """Family and params of a network that starts from initial weights."""
    name = config.family or getattr(VARIANTS.get(config.variant or ""), "family", None)
    if name is None or not (config.params or config.variant):
        raise ValueError(
            "the recipe does not say which network to train: set model.family and model.variant or model.params, or "
            "model.start to a checkpoint."
        )
    family = _family(name)
    return family, _params(family, config)


def _family(name: str) -> Family:
    try:
        return find_family(name)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error


def _params(family: Family, config: ModelConfig) -> Any:
    given = plain_params(family, config.params)
    variant = None if config.variant is None else _variant(family, config.variant)
    try:
        return family.params(**given) if variant is None else dataclasses.replace(variant, **given)
    except TypeError as error:  # a size without a default is missing
        raise ValueError(f"model.params: {str(error).partition('() ')[2]} of {family.name}.") from error
    except ValueError as error:
        raise ValueError(f"model.params: {error}") from error


def _variant(family: Family, name: str) -> Any:
    variant = VARIANTS.get(name)
    if variant is None or variant.family != family.name:
        known = ", ".join(key for key, other in VARIANTS.items() if other.family == family.name)
        raise ValueError(f'model.variant "{name}" is not known for {family.name}; there are {known}.')
    return variant.params


def _load(config: ModelConfig) -> Model:
    """The checkpoint, with params of the recipe where its tensors do not determine them."""
    assert config.start is not None
    given = _open(config, inspect_checkpoint(config.start))
    model = load_checkpoint(
        config.start, weights=config.weights, params=given, encoder=config.encoder, operations=TrainingOperations
    )
    log.info("starting from %s, %s weights", config.start, model.spec.weights or "its")
    return model


def _open(config: ModelConfig, info: CheckpointInfo) -> dict[str, Any]:
    """Params of the recipe for what the tensors of a checkpoint leave open."""
    if info.spec is not None:
        given = _undetermined(info.spec.family, info.params, config)
    elif config.family is not None:  # it may lack these; if not, loading says why
        given = plain_params(_family(config.family), config.params)
    else:
        given = config.params
    return {name: value for name, value in given.items() if name not in _REPLACED}


def _undetermined(family: Family, params: Any, config: ModelConfig) -> dict[str, Any]:
    """What the recipe declares and the tensors of a checkpoint leave open.

    Raises:
        ValueError: what it declares is not what the tensors say.
    """
    if config.family not in (None, family.name):
        known = f", not known; there are {', '.join(FAMILIES)}" if config.family not in FAMILIES else ""
        raise ValueError(
            f"model.start {config.start} is {family.title} ({family.name}), and model.family says {config.family}"
            f"{known}. Leave model.family out, or name another checkpoint."
        )
    declared = plain_params(family, config.params)
    if config.variant is not None:
        variant = _variant(family, config.variant)
        defaults = {field.name: field.default for field in dataclasses.fields(variant)}
        sizes = {name: value for name, value in vars(variant).items() if value != defaults[name]}
        declared = sizes | declared
    shapes = {key: tuple(value.shape) for key, value in build_network(family, params).state_dict().items()}
    found = family.params_from(shapes)
    for name, value in declared.items():
        if name in found and found[name] != value and name not in _REPLACED:
            raise ValueError(
                f"model.start {config.start} has {name} {found[name]}, and the recipe says {value}. Leave it out: "
                "sizes come from the checkpoint."
            )
    return {name: value for name, value in declared.items() if name not in found}
