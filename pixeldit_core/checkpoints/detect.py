"""Detect the network in a file and validate it strictly (missing, misshapen, unexpected tensors)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..families import Shapes
from ..labels import Names
from ..spec import ModelSpec, default_class_names
from ..text import shorten_list
from .config import Config, embedded_config
from .header import Header
from .layouts import find_stored
from .metadata import DEPTH, read_metadata
from .params import merge_params, params_from_shapes, without_unrelated
from .refused_kinds import find_refused
from .skeleton import build_on_meta
from .strict import check_strict, explain_incomplete
from .weight_sets import MOST_NETWORKS, Group, choose_group

_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Detected:
    """The network to load."""

    group: Group
    spec: ModelSpec
    network: nn.Module  #         on "meta"
    stored: Mapping[str, str]  #  the file's names of its tensors, by canonical name
    guessed: Mapping[str, Any]  # params that nothing declares, as published

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its tensors, by canonical name."""
        return {key: tuple(value.shape) for key, value in self.network.state_dict().items()}


def detect(
    header: Header,
    metadata: Mapping[str, str],
    config: Config,
    name: str,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    **factory_kwargs: Any,
) -> Detected:
    """The network to load: complete, of the right shapes, and with everything that the file declares about it.

    Params are taken in this order: the caller's, what another file declares about a part of the network, the file's own
    metadata, the config inside of it, the config beside it, defaults.

    Args:
        config: what lies beside the file.
        name: of the file, for messages.
        weights: as of `choose_group`.
        beside: params that the files of parts of the network declare, by file.
        factory_kwargs: of the network: operations, attention, dtype.

    Raises:
        ValueError: no network, or another kind of file; weights asked for and not there; a tensor that is missing,
            misshapen or unexpected; params, metadata or a config that contradict the shapes.
    """
    group = _choose(header, weights, name)
    family, declared = group.family, read_metadata(metadata, name)
    if declared.family not in (None, family.name):
        raise ValueError(
            f'{name}: its metadata says family "{declared.family[:80]}", its tensors say "{family.name}". The file is '
            "damaged: get it again."
        )
    stored = find_stored(header.shapes, group)
    if sum(0 in header.shapes[key] for key in stored.values()) > len(stored) // 2:
        raise ValueError(
            f"{name} has names and no numbers: its tensors are empty. So DeepSpeed (ZeRO 3) and FSDP leave a file "
            "whose weights are sharded over others. Where it was trained, gather them (zero_to_fp32.py) and save again."
        )
    try:
        from_shapes, defaults = params_from_shapes(family, {key: header.shapes[stored[key]] for key in stored}, name)
    except ValueError as error:
        if reason := explain_incomplete(header, group, stored, name):
            raise ValueError(reason) from error
        raise
    config, embedded = without_unrelated(config, from_shapes, name), embedded_config(metadata)
    sources = {
        f"{config.source} beside it": config.params(family, from_shapes, name),
        embedded.source: embedded.params(family, from_shapes, name),
        "its metadata": {key: value for key, value in declared.params.items() if key != DEPTH},  # the tensors decide
        **(beside or {}),
        "params": params or {},
    }
    merged = merge_params(family, from_shapes, defaults, sources, name)
    declared_names = {key for values in sources.values() for key in values}
    guessed = {key: getattr(merged, key) for key in defaults if key not in declared_names and key not in from_shapes}
    if getattr(merged, DEPTH, None) == 0:
        guessed = {key: value for key, value in guessed.items() if not key.startswith("encoder_")}
    network = build_on_meta(group, merged, name, **factory_kwargs)
    check_strict(header, group, stored, network, name)
    classes = getattr(merged, "num_classes", 0)
    if declared.class_names and len(declared.class_names) != classes:
        raise ValueError(
            f"{name}: its metadata has {len(declared.class_names)} class names for {classes} classes. The file is "
            "damaged: get it again."
        )
    assumed = config.class_names(classes) or family.class_names(embedded.values)
    names = declared.class_names or _of_length(assumed, classes) or default_class_names(family, merged)
    settings = declared.settings or config.settings(family, merged, name)
    spec = ModelSpec(family, merged, names, settings, name, group.weights, declared.about)
    return Detected(group, spec, network, stored, guessed)


def _choose(header: Header, weights: str, name: str) -> Group:
    if not header.groups:
        raise ValueError(_explain_none(header.shapes, name))
    if len(header.groups) > MOST_NETWORKS:
        raise ValueError(f"{name} holds {len(header.groups)} networks, more than {MOST_NETWORKS}. Choose another file.")
    return choose_group(header.groups, weights, name)


def _of_length(names: Names | None, count: int) -> Names | None:
    """The names, unless they are of a data set that the network was not trained on."""
    return names if names and len(names) == count else None


def _explain_none(shapes: Shapes, name: str) -> str:
    """The message for a file without a network of ours."""
    if not shapes:
        return f"{name} holds no tensors. Choose another file."
    if kind := find_refused(shapes):
        return f"{name} is {kind.title}. {kind.advice}"
    first = shorten_list(sorted(shapes), _SHOWN)
    return f"{name} is not a PixelDiT checkpoint. Its first tensors are {first}. Choose another file."
