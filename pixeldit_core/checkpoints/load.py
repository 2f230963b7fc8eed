"""From a file to a network: recognise, choose the weights, find the sizes, check everything, fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families import Family, Shapes, build_network
from ..labels import Names
from ..model import Model, default_class_names
from ..recipes import Recipe
from .layouts import Group, find_groups, find_refused, is_ignored
from .metadata import read_metadata
from .read import read_checkpoint, read_shapes
from .split import join_shapes, join_tensors

_SHOWN = 5  # names in an error message
_MOST_NETWORKS = 16  # in one file


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file is, from its header."""

    path: Path
    family: str | None
    title: str
    layout: str  #                      prefix of the weights that would be loaded
    weights: tuple[str, ...]  #         "ema", "raw"
    params: Any
    dtype: torch.dtype | None
    quantisation: str | None
    count: int  #                       parameters of the network
    class_names: Names | None = None
    recipe: Recipe | None = None
    refused: str | None = None  #       why it does not load


@dataclass(frozen=True)
class Weights:
    """A checked state dict under canonical names, with what is known of its network."""

    family: Family
    params: Any
    tensors: dict[str, Tensor]
    group: Group
    class_names: Names | None
    recipe: Recipe | None
    source: str


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """What a file is: family, layout, weights, sizes, dtype. Reads no tensor data.

    A file that is recognised and not for us, or does not fit its family, has `refused` set to the reason.

    Raises:
        ValueError: not a readable checkpoint at all.
    """
    path = Path(path)
    stored, dtypes, metadata = read_shapes(path)
    shapes = join_shapes(stored)
    groups = find_groups(shapes)
    try:
        group, params, about = _recognise(shapes, metadata, groups, path.name, "auto", None)
        wanted = _check_strict(shapes, groups, group, params, path.name)
    except ValueError as error:
        kind = None if groups else find_refused(shapes)
        title = groups[0].family.title if groups else kind.title if kind else "unknown"
        return CheckpointInfo(path, None, title, "", (), None, None, None, 0, refused=str(error))
    kinds = {dtypes[group.prefix + key] for key in wanted if group.prefix + key in dtypes}  # halves are not there
    compact = sorted(str(kind)[6:] for kind in kinds if kind.itemsize == 1)
    return CheckpointInfo(
        path=path,
        family=group.family.name,
        title=group.family.title,
        layout=group.prefix or "canonical",
        weights=tuple(sorted({entry.weights for entry in groups})),
        params=params,
        dtype=dtypes[group.prefix + group.family.markers[0]],
        quantisation=compact[0] if compact else None,
        count=sum(torch.Size(shape).numel() for shape in wanted.values()),
        class_names=about.get("class_names") or default_class_names(group.family, params),
        recipe=about.get("recipe"),
    )


def read_weights(path: str | Path, weights: str = "auto", params: Mapping[str, Any] | None = None) -> Weights:
    """The tensors of a network under canonical names, as stored, all present and of the right shape.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    path = Path(path)
    tensors, metadata = read_checkpoint(path)
    try:
        tensors = join_tensors(tensors)
    except RuntimeError as error:  # halves of dtypes that torch does not join
        raise ValueError(f"{path.name}: its split matrices cannot be joined ({error}). Get the file again.") from error
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    groups = find_groups(shapes)
    group, found, about = _recognise(shapes, metadata, groups, path.name, weights, params)
    wanted = _check_strict(shapes, groups, group, found, path.name)
    return Weights(
        family=group.family,
        params=found,
        tensors={key: tensors[group.prefix + key] for key in wanted},
        group=group,
        class_names=about.get("class_names") or default_class_names(group.family, found),
        recipe=about.get("recipe"),
        source=path.name,
    )


def load_checkpoint(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    **kit: Any,
) -> Model:
    """A model from a file, ready to sample.

    Args:
        weights: "ema", "raw", or "auto": what the authors' own inference takes, where the file has both.
        params: what neither the file nor its shapes tell, by name, such as {"use_pixel_abs_pos": False}.
        kit: operations and attention function of the network.

    Raises:
        ValueError: not a readable checkpoint; another kind of file; weights asked for and not there; a missing, left
            over or misshapen tensor; params that are unknown or contradict the shapes.
    """
    found = read_weights(path, weights, params)
    network = build_network(found.family, found.params, dtype=dtype, **kit)
    filled = {key: value.to(device, dtype) for key, value in found.tensors.items()}
    network.load_state_dict(filled, strict=True, assign=True)
    network.requires_grad_(False)
    return Model(
        found.family, found.params, network, found.class_names, found.recipe, found.source, found.group.weights
    )


def _recognise(
    shapes: Shapes,
    metadata: dict[str, str],
    groups: list[Group],
    name: str,
    weights: str,
    params: Mapping[str, Any] | None,
) -> tuple[Group, Any, dict[str, Any]]:
    """The group to load, its params and what the metadata says."""
    if not groups:
        raise ValueError(_why_unknown(shapes, name))
    if len(groups) > _MOST_NETWORKS:
        raise ValueError(f"{name} holds {len(groups)} networks, which no checkpoint does. Choose another file.")
    group = _choose(groups, weights, name)
    about = read_metadata(metadata, name)
    family = about.get("family", group.family.name)
    if family != group.family.name:
        raise ValueError(f'{name}: its metadata says family "{family}", its tensors say "{group.family.name}".')
    try:
        told = group.family.params_from(_strip(shapes, group))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        what = f"tensor {error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{name}: this looks like {group.family.title}, but its sizes cannot be told: {what}. The file is "
            "incomplete or of another network: get it again, or choose another."
        ) from error
    joined = _join_params(group.family, told, about.get("params", {}), params or {}, name)
    names = about.get("class_names")
    classes = getattr(joined, "num_classes", 0)
    if names and len(names) != classes:
        raise ValueError(f"{name}: its metadata has {len(names)} class names for {classes} classes.")
    return group, joined, about


def _choose(groups: list[Group], weights: str, name: str) -> Group:
    if weights not in ("auto", "ema", "raw"):
        raise ValueError(f'weights "{weights}" is not a choice; take "auto", "ema" or "raw".')
    prefer = groups[0].family.prefers_ema if weights == "auto" else weights == "ema"
    fitting = [group for group in groups if group.ema == prefer]
    if fitting:
        return fitting[0]
    if weights == "auto":
        return groups[0]
    has = ", ".join(sorted({group.weights for group in groups}))
    raise ValueError(f'{name} has no {weights} weights, only {has}. Choose "auto".')


def _join_params(family: Family, told: dict[str, Any], stored: Mapping, given: Mapping, name: str) -> Any:
    """Params by precedence: the caller's, then the file's, then the shapes'; none may contradict the shapes."""
    known = {field.name for field in dataclasses.fields(family.params)}
    values = dict(told)
    for origin, source in (("its metadata", stored), ("params", given)):
        for key, value in source.items():
            if key not in known:
                raise ValueError(f'{name}: {origin} has "{key}", which {family.title} does not know.')
            value = tuple(value) if isinstance(value, list) else value
            if key in told and value is not None and value != told[key]:
                raise ValueError(f"{name}: {origin} says {key} = {value!r}, its tensors say {told[key]!r}.")
            if key not in told:
                values[key] = value
    try:
        return family.params(**values)
    except (ValueError, TypeError, OverflowError) as error:  # the metadata's values may be of any kind
        raise ValueError(
            f"{name}: the shapes of its tensors belong to no PixelDiT: {error} "
            "The file is damaged or of another network."
        ) from error


def _strip(shapes: Shapes, group: Group) -> dict[str, tuple[int, ...]]:
    """Shapes of a group under canonical names, without what the ignore list has."""
    start = len(group.prefix)
    inside = {key[start:]: shape for key, shape in shapes.items() if key.startswith(group.prefix)}
    return {key: shape for key, shape in inside.items() if not is_ignored(key)}


def _check_strict(shapes: Shapes, groups: list[Group], group: Group, params: Any, name: str) -> Shapes:
    """Shapes of the network's tensors; makes sure that all are there and right, and that nothing is left over."""
    wanted = _strip(shapes, group)
    try:
        network = build_network(group.family, params)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond any tensor, from shapes with a 0 in them
        raise ValueError(f"{name}: no network has the sizes of its tensors. Get the file again.") from error
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in expected if key not in wanted]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(expected)} tensors are missing: {_names(missing)}. "
            "The file is incomplete: get it again."
        )
    wrong = [
        f"{key} is {list(wanted[key])}, expected {list(shape)}"
        for key, shape in expected.items()
        if wanted[key] != shape
    ]
    if wrong:
        raise ValueError(
            f"{name}: {len(wrong)} of {len(expected)} tensors have a shape that does not fit: {_names(wrong, '; ')}."
        )
    owned = {entry.prefix + key for entry in groups for key in expected}  # by any of the networks in the file
    others = tuple(entry.prefix for entry in groups if entry.prefix not in ("", group.prefix))
    extra = [key for key in shapes if key not in owned and not key.startswith(others) and not is_ignored(key)]
    if extra:
        raise ValueError(
            f"{name}: {len(extra)} tensors do not belong to {group.family.title}: {_names(extra)}. "
            "It may be another variant of the network, which would give wrong pictures."
        )
    return expected


def _why_unknown(shapes: Shapes, name: str) -> str:
    if not shapes:
        return f"{name} holds no tensors. Choose another file."
    if kind := find_refused(shapes):
        return f"{name} is {kind.title}. {kind.advice}"
    return f"{name} is not a PixelDiT checkpoint. Its first tensors are {_names(sorted(shapes))}. Choose another file."


def _names(names: list[str], join: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return join.join(names[:_SHOWN]) + more
