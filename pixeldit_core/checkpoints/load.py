"""From a file to a network: recognise, choose the weights, find the sizes, check everything, fill."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
from .quantised import companions, dequantise, find_quantised, is_plain, padded, real_shapes
from .read import read_checkpoint, read_shapes
from .split import halves_of, join_halves, join_shapes

_SHOWN = 5  # names in an error message


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
    quantisation: str | None  #         "fp8", "mxfp8", "int8": of most of the large matrices
    count: int  #                       parameters of the network
    class_names: Names | None = None
    recipe: Recipe | None = None
    refused: str | None = None  #       why it does not load


@dataclass(frozen=True)
class Weights:
    """A checked state dict under canonical names, with what is known of its network."""

    family: Family
    params: Any
    tensors: Mapping[str, Tensor]  #    of a quantised file: computed at each look, so go through them once
    group: Group
    class_names: Names | None
    recipe: Recipe | None
    source: str
    storage: str | None = None  #       "fp8", "mxfp8", "int8": how the file keeps most of its large matrices


@dataclass(frozen=True)
class _Contents:
    """What a header says: shapes as a network has them, the networks, and the kind of each quantised tensor."""

    shapes: Shapes
    groups: list[Group]
    quantised: Mapping[str, str]

    def storage(self, group: Group) -> str | None:
        kinds = Counter(kind for name, kind in self.quantised.items() if name.startswith(group.prefix))
        return kinds.most_common(1)[0][0] if kinds else None

    def fits(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether a tensor has the right shape, but for padding where it (or one of its halves) is mxfp8."""
        if not any(self.quantised.get(key) == "mxfp8" for key in (name, *halves_of(name))):
            return found == wanted
        return len(found) == len(wanted) and all(a in (b, padded(b)) for a, b in zip(found, wanted, strict=True))


class _Lazy(Mapping[str, Tensor]):
    """Tensors that are made at each look, so that a quantised file is never in memory as a whole, nor twice."""

    def __init__(self, shapes: Shapes, make: Callable[[str, tuple[int, ...]], Tensor]):
        self._shapes, self._make = dict(shapes), make

    def __getitem__(self, key: str) -> Tensor:
        return self._make(key, self._shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def pop(self, key: str) -> Tensor:
        """As a dictionary's: ComfyUI takes the weights away one by one."""
        return self._make(key, self._shapes.pop(key))


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """What a file is: family, layout, weights, sizes, dtype. Reads no tensor data.

    A file that is recognised and not for us, or does not fit its family, has `refused` set to the reason.

    Raises:
        ValueError: not a readable checkpoint at all.
    """
    path = Path(path)
    stored, dtypes, metadata = read_shapes(path)
    groups = find_groups(stored)
    try:
        contents = _survey(stored, dtypes, metadata, path.name)
        group, params, about = _recognise(contents, metadata, path.name, "auto", None)
        wanted = _check_strict(contents, group, params, path.name)
    except ValueError as error:
        kind = None if groups else find_refused(stored)
        title = groups[0].family.title if groups else kind.title if kind else "unknown"
        return CheckpointInfo(path, None, title, "", (), None, None, None, 0, refused=str(error))
    return CheckpointInfo(
        path=path,
        family=group.family.name,
        title=group.family.title,
        layout=group.prefix or "canonical",
        weights=tuple(sorted({entry.weights for entry in groups})),
        params=params,
        dtype=dtypes[group.prefix + group.family.markers[0]],
        quantisation=contents.storage(group),
        count=sum(torch.Size(shape).numel() for shape in wanted.values()),
        class_names=about.get("class_names") or default_class_names(group.family, params),
        recipe=about.get("recipe"),
    )


def read_weights(
    path: str | Path,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Weights:
    """The tensors of a network under canonical names, all present and of the right shape.

    They are as stored, float8 without scales too; other quantised ones become plain numbers when they are looked at.

    Args:
        compute_dtype: of the plain numbers; None = what the file has for the weights that it does not quantise.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    path = Path(path)
    stored, metadata = read_checkpoint(path)
    shapes = {key: tuple(value.shape) for key, value in stored.items()}
    dtypes = {key: value.dtype for key, value in stored.items()}
    contents = _survey(shapes, dtypes, metadata, path.name)
    group, found, about = _recognise(contents, metadata, path.name, weights, params)
    wanted = _check_strict(contents, group, found, path.name)
    own = dtypes[group.prefix + group.family.markers[0]]
    dtype = compute_dtype or (own if own in group.family.dtypes else torch.float32)

    def read(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in stored:
            halves = (read(half, (shape[0] // 2, *shape[1:])) for half in halves_of(name))
            return join_halves(*halves, found.pixel_hidden_size)
        if name not in contents.quantised or is_plain(name, stored, metadata):
            return stored[name]
        try:
            return dequantise(name, stored, metadata, shape, dtype)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error

    tensors = _Lazy(wanted, lambda key, shape: read(group.prefix + key, shape))
    return Weights(
        family=group.family,
        params=found,
        tensors=tensors if contents.quantised else dict(tensors),
        group=group,
        class_names=about.get("class_names") or default_class_names(group.family, found),
        recipe=about.get("recipe"),
        source=path.name,
        storage=contents.storage(group),
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
            over or misshapen tensor; params that are unknown or contradict the shapes; a quantised tensor of a format
            that is not supported, or whose scale or description is missing or damaged.
    """
    found = read_weights(path, weights, params, dtype)
    network = build_network(found.family, found.params, dtype=dtype, **kit)
    filled = {key: value.to(device, dtype) for key, value in found.tensors.items()}
    network.load_state_dict(filled, strict=True, assign=True)
    network.requires_grad_(False)
    return Model(
        found.family, found.params, network, found.class_names, found.recipe, found.source, found.group.weights
    )


def _survey(stored: Shapes, dtypes: Mapping[str, torch.dtype], metadata: Mapping[str, str], name: str) -> _Contents:
    """What is in a file, without the tensors that only tell of quantisation."""
    groups = find_groups(stored)
    if not groups:  # to be refused, by a better name than that of its quantisation
        return _Contents(stored, groups, {})
    ours = {key: dtype for key, dtype in dtypes.items() if not is_ignored(key)}
    try:
        quantised = find_quantised(ours, stored, metadata)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # the scale of a weight that is not quantised stays, and is left over: nobody knows what it means
    aside = companions(key for key in stored if key in quantised or not key.endswith(".weight"))
    real = real_shapes(stored, quantised)
    return _Contents(join_shapes({key: real[key] for key in real if key not in aside}), groups, quantised)


def _recognise(
    contents: _Contents,
    metadata: dict[str, str],
    name: str,
    weights: str,
    params: Mapping[str, Any] | None,
) -> tuple[Group, Any, dict[str, Any]]:
    """The group to load, its params and what the metadata says."""
    if not contents.groups:
        raise ValueError(_why_unknown(contents.shapes, name))
    group = _choose(contents.groups, weights, name)
    about = read_metadata(metadata, name)
    family = about.get("family", group.family.name)
    if family != group.family.name:
        raise ValueError(f'{name}: its metadata says family "{family}", its tensors say "{group.family.name}".')
    try:
        told = group.family.params_from(_strip(contents.shapes, group))
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
    except ValueError as error:
        raise ValueError(
            f"{name}: the shapes of its tensors belong to no PixelDiT: {error} "
            "The file is damaged or of another network."
        ) from error


def _strip(shapes: Shapes, group: Group) -> dict[str, tuple[int, ...]]:
    """Shapes of a group under canonical names, without what the ignore list has."""
    start = len(group.prefix)
    inside = {key[start:]: shape for key, shape in shapes.items() if key.startswith(group.prefix)}
    return {key: shape for key, shape in inside.items() if not is_ignored(key)}


def _check_strict(contents: _Contents, group: Group, params: Any, name: str) -> Shapes:
    """Shapes of the network's tensors; makes sure that all are there and right, and that nothing is left over."""
    shapes, groups = contents.shapes, contents.groups
    wanted = _strip(shapes, group)
    network = build_network(group.family, params)
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
        if not contents.fits(group.prefix + key, wanted[key], shape)
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
