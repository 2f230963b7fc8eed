"""What a file holds, from its header: the networks in it, the one to load, its sizes - and that nothing is amiss."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..families import Family, Shapes, build_network
from ..spec import ModelSpec, default_class_names
from .comfy_adaln import halves_of, join_shapes
from .config import Config, config_inside
from .json_values import brief, fitting, shown
from .layouts import Group, canonical, find_groups, find_refused, find_stored, is_ignored
from .metadata import read_metadata
from .quantized import companions, find_quantized, padded, real_shapes

log = logging.getLogger(__name__)

_SHOWN = 5  # names in an error message
_MOST_NETWORKS = 16  # in one file


@dataclass(frozen=True)
class Contents:
    """What a header says: shapes as a network has them, the networks, and the kind of each quantized tensor."""

    shapes: Shapes
    groups: list[Group]
    quantized: Mapping[str, str]

    def storage(self, group: Group) -> str | None:
        """How most of the large matrices are kept: "fp8", "mxfp8" or "int8"; None = as plain numbers."""
        kinds = Counter(kind for name, kind in self.quantized.items() if name.startswith(group.prefix))
        return kinds.most_common(1)[0][0] if kinds else None

    def fits(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether a tensor has the right shape, but for padding where it (or one of its halves) is mxfp8."""
        if not any(self.quantized.get(key) == "mxfp8" for key in (name, *halves_of(name))):
            return found == wanted
        return len(found) == len(wanted) and all(a in (b, padded(b)) for a, b in zip(found, wanted, strict=True))


@dataclass(frozen=True)
class Found:
    """The network to load."""

    group: Group
    spec: ModelSpec
    shapes: Shapes  #             of its tensors, by canonical name
    stored: Mapping[str, str]  #  what the file calls them


def survey(stored: Shapes, dtypes: Mapping[str, torch.dtype], metadata: Mapping[str, str], name: str) -> Contents:
    """What is in a file, without the tensors that only tell of quantization.

    Raises:
        ValueError: weights of a format that is not supported, a scale that is missing or misshapen.
    """
    groups = find_groups(stored)
    if not groups:  # to be refused, by a better name than that of its quantization
        return Contents(stored, groups, {})
    ours = {key: dtype for key, dtype in dtypes.items() if not is_ignored(key)}
    try:
        quantized = find_quantized(ours, stored, metadata)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # the scale of a weight that is not quantized stays, and is left over: nobody knows what it means
    aside = companions(key for key in stored if key in quantized or not key.endswith(".weight"))
    real = real_shapes(stored, quantized)
    return Contents(join_shapes({key: real[key] for key in real if key not in aside}), groups, quantized)


def detect(
    contents: Contents,
    metadata: Mapping[str, str],
    config: Config,
    name: str,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
) -> Found:
    """The network to load, complete and nothing but it, and what is known of it.

    What is told wins in this order: the caller's params, the file's own metadata, the config inside of it, the config
    beside it, the shapes.

    Raises:
        ValueError: no network, or another kind of file; weights asked for and not there; a tensor that is missing,
            misshapen or left over; params, metadata or a config that contradict the shapes.
    """
    if not contents.groups:
        raise ValueError(_why_unknown(contents.shapes, name))
    if len(contents.groups) > _MOST_NETWORKS:
        count = len(contents.groups)
        raise ValueError(f"{name} holds {count} networks, which no checkpoint does. Choose another file.")
    group = _choose(contents.groups, weights, name)
    family, about = group.family, read_metadata(metadata, name)
    if about.get("family", family.name) != family.name:
        raise ValueError(f'{name}: its metadata says family "{about["family"][:80]}", its tensors say "{family.name}".')
    names = find_stored(contents.shapes, group)
    inside = {key: contents.shapes[stored] for key, stored in names.items()}
    try:
        told, guessed = family.params_from(inside), family.default_params(inside)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        what = f"tensor {error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{name}: this looks like {family.title}, but its sizes cannot be told: {what}. The file is "
            "incomplete or of another network: get it again, or choose another."
        ) from error
    if not config.strict and config.contradicts(told):
        log.info("%s: %s beside it is of another network, and not read.", name, config.source)
        config = Config()
    own = config_inside(metadata)
    origins = {
        f"{config.source} beside it": config.params(family, told, name),
        own.source: own.params(family, told, name),
        "its metadata": about.get("params", {}),
        "params": params or {},
    }
    joined = _join_params(family, told, guessed, origins, name)
    shapes = _check_strict(contents, group, names, joined, name)
    classes = getattr(joined, "num_classes", 0)
    labels = about.get("class_names")
    if labels and len(labels) != classes:
        raise ValueError(f"{name}: its metadata has {len(labels)} class names for {classes} classes.")
    labels = labels or config.class_names(classes) or family.class_names(own.values)
    if labels and len(labels) != classes:  # of a data set that the network was not trained on
        labels = None
    settings = about.get("settings") or config.settings(family, joined, name)
    labels = labels or default_class_names(family, joined)
    return Found(group, ModelSpec(family, joined, labels, settings, name, group.weights), shapes, names)


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


def _join_params(
    family: Family, told: dict[str, Any], guessed: dict[str, Any], origins: Mapping[str, Mapping], name: str
) -> Any:
    """Params from the shapes and from others; the last one counts, and none may contradict what the shapes tell."""
    known = {field.name: field.default for field in dataclasses.fields(family.params)}
    values = guessed | told
    for origin, source in origins.items():
        for key, value in source.items():
            if key not in known:
                raise ValueError(f'{name}: {origin} has "{key[:80]}", which {family.title} does not know.')
            if key not in told:
                try:
                    values[key] = fitting(value, known[key])
                except ValueError as error:
                    raise ValueError(f"{name}: in {origin} {key} is {error}.") from error
            elif value is not None and value != told[key]:
                raise ValueError(
                    f"{name}: {origin} says {key} = {shown(value)}, its tensors say {told[key]!r}. They do not belong "
                    "together: get both again, or move the wrong one away."
                )
    if unknown := [key for key in guessed if values[key] is None]:
        raise ValueError(
            f"{name}: neither its shapes nor a configuration tell {' and '.join(unknown)} of this {family.title}. "
            f"Give them: params={{{', '.join(f'{key!r}: ...' for key in unknown)}}}."
        )
    try:
        return family.params(**values)
    except (ValueError, TypeError, OverflowError) as error:  # the values of a file may be of any kind
        raise ValueError(
            f"{name}: the shapes of its tensors belong to no {family.title.split(',')[0]}: {brief(error)} "
            "The file is damaged or of another network."
        ) from error


def _check_strict(contents: Contents, group: Group, names: Mapping[str, str], params: Any, name: str) -> Shapes:
    """Shapes of the network's tensors; makes sure that all are there and right, and that nothing is left over.

    `names` is what the file calls them.
    """
    shapes, groups = contents.shapes, contents.groups
    try:
        network = build_network(group.family, params)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond any tensor, from shapes with a 0 in them
        raise ValueError(f"{name}: no network has the sizes of its tensors. Get the file again.") from error
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in expected if key not in names]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(expected)} tensors are missing: {_names(missing)}. "
            "The file is incomplete: get it again."
        )
    ours = {key: canonical(key[len(group.prefix) :], group.family) for key in shapes if key.startswith(group.prefix)}
    wrong = [
        f"{own} is {list(shapes[key])}, expected {list(expected[own])}"
        for key, own in ours.items()
        if own in expected and not contents.fits(key, shapes[key], expected[own])
    ]
    if wrong:
        raise ValueError(
            f"{name}: {len(wrong)} of {len(expected)} tensors have a shape that does not fit: {_names(wrong, '; ')}."
        )
    owned = {  # by any of the networks in the file
        key
        for entry in groups
        for key in shapes
        if key.startswith(entry.prefix) and canonical(key[len(entry.prefix) :], entry.family) in expected
    }
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
