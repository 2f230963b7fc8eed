"""From a path to a network: read, detect, fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families import Shapes, build_network
from ..labels import Names
from ..model import Model
from ..settings import SamplingSettings
from ..spec import ModelSpec
from .comfy_adaln import halves_of, is_half, join_halves
from .config import Config, read_config
from .detect import detect, survey
from .layouts import Group, find_groups, find_refused
from .locate import find_source
from .quantized import dequantize, is_plain, scaled_fp8
from .read import read_source, read_source_shapes


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file is, from its header."""

    path: Path
    title: str
    spec: ModelSpec | None = None  #     None = refused
    layout: str = ""  #                 prefix of the weights that would be loaded
    weights: tuple[str, ...] = ()  #    "ema", "raw"
    dtype: torch.dtype | None = None
    quantization: str | None = None  #  "fp8", "mxfp8", "int8": of most of the large matrices
    count: int = 0  #                   parameters of the network
    refused: str | None = None  #       why it does not load

    @property
    def family(self) -> str | None:
        return self.spec.family.name if self.spec else None

    @property
    def params(self) -> Any:
        return self.spec.params if self.spec else None

    @property
    def class_names(self) -> Names | None:
        return self.spec.class_names if self.spec else None

    @property
    def settings(self) -> SamplingSettings | None:
        """The checkpoint's own."""
        return self.spec.settings if self.spec else None


@dataclass(frozen=True)
class Weights:
    """A checked state dict under canonical names, with what is known of its network."""

    spec: ModelSpec
    tensors: Mapping[str, Tensor]  #    of a quantized file: computed at each look, so go through them once
    group: Group
    storage: str | None = None  #       "fp8", "mxfp8", "int8": how the file keeps most of its large matrices
    meta: Mapping[str, Tensor] = field(default_factory=dict)  # shapes and dtypes of `tensors`, on "meta"
    scaled: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # float8 as stored, and its scale


class _Lazy(Mapping[str, Tensor]):
    """Tensors that are made at each look, so that a quantized file is never in memory as a whole, nor twice."""

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
    """What a file or folder is: family, layout, weights, sizes, dtype. Reads no tensor data.

    One that is detected and not for us, or does not fit its family, has `refused` set to the reason.

    Raises:
        ValueError: not a readable checkpoint at all.
    """
    path, source = Path(path), find_source(path)
    stored, dtypes, metadata = read_source_shapes(source)
    groups = find_groups(stored)
    try:
        contents = survey(stored, dtypes, metadata, source.name)
        found = detect(contents, metadata, read_config(source), source.name)
    except ValueError as error:
        kind = None if groups else find_refused(stored)
        title = groups[0].family.title if groups else kind.title if kind else "unknown"
        return CheckpointInfo(path, title, refused=str(error))
    group = found.group
    return CheckpointInfo(
        path=path,
        title=group.family.title,
        layout=group.prefix or "canonical",
        weights=tuple(sorted({entry.weights for entry in groups})),
        spec=found.spec,
        dtype=dtypes[group.prefix + group.family.markers[0]],
        quantization=contents.storage(group),
        count=sum(torch.Size(shape).numel() for shape in found.shapes.values()),
    )


def read_weights(
    path: str | Path,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Weights:
    """The tensors of a network under canonical names, all present and of the right shape.

    They are as stored, float8 without scales too; other quantized ones become plain numbers when they are looked at.

    Args:
        compute_dtype: of the plain numbers; None = what the file has for the weights that it does not quantize.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    source = find_source(path)
    stored, metadata = read_source(source)
    return take_weights(stored, metadata, read_config(source), source.name, weights, params, compute_dtype)


def take_weights(
    stored: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    config: Config,
    name: str,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Weights:
    """The same of tensors that are read already; `name` is for messages."""
    shapes = {key: tuple(value.shape) for key, value in stored.items()}
    dtypes = {key: value.dtype for key, value in stored.items()}
    contents = survey(shapes, dtypes, metadata, name)
    found = detect(contents, metadata, config, name, weights, params)
    group = found.group
    own = dtypes[group.prefix + group.family.markers[0]]
    dtype = compute_dtype or (own if own in group.family.dtypes else torch.float32)

    def is_stored(key: str) -> bool:
        return key not in contents.quantized or is_plain(key, stored, metadata)

    def read(key: str, shape: tuple[int, ...]) -> Tensor:
        if key not in stored:
            halves = (read(half, (shape[0] // 2, *shape[1:])) for half in halves_of(key))
            return join_halves(*halves, found.spec.params.pixel_hidden_size)
        return stored[key] if is_stored(key) else dequantize(key, stored, metadata, shape, dtype)

    def make(key: str, shape: tuple[int, ...]) -> Tensor:
        try:
            return read(found.stored[key], shape)
        except (ValueError, RuntimeError) as error:  # halves of dtypes that torch does not join
            raise ValueError(f"{name}: {error}") from error

    def dtype_of(key: str) -> torch.dtype:
        key = key if key in stored else halves_of(key)[0]
        return stored[key].dtype if is_stored(key) else dtype

    tensors = _Lazy(found.shapes, make)
    meta = {
        key: torch.empty(shape, dtype=dtype_of(found.stored[key]), device="meta") for key, shape in found.shapes.items()
    }
    return Weights(
        spec=found.spec,
        tensors=tensors if contents.quantized else dict(tensors),
        group=group,
        storage=contents.storage(group),
        meta=meta,
        scaled=dict(_scaled(stored, metadata, group, contents.quantized, name)),
    )


def _scaled(
    stored: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    group: Group,
    quantized: Mapping[str, str],
    name: str,
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    for key, kind in quantized.items():
        if kind != "fp8" or not key.startswith(group.prefix) or is_half(key):
            continue
        try:
            pair = scaled_fp8(key, stored, metadata)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if pair:
            yield key[len(group.prefix) :], pair


def load_checkpoint(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    **factory_kwargs: Any,
) -> Model:
    """A model from a file, ready to sample.

    Args:
        path: a `.safetensors`, `.ckpt`, `.pth`, `.pt` or `.bin` file, the index of a sharded one, or a diffusers
            folder. A config beside it is read for what shapes do not tell.
        weights: "ema", "raw", or "auto": what the authors' own inference takes, where the file has both.
        params: what neither the file nor its shapes tell, by name, such as {"use_pixel_abs_pos": False}.
        factory_kwargs: operations and attention function of the network.

    Raises:
        ValueError: not a readable checkpoint; another kind of file; weights asked for and not there; a missing, left
            over or misshapen tensor; params or a config that are unknown or contradict the shapes; a quantized tensor
            of a format that is not supported, or whose scale or description is missing or damaged.
    """
    found = read_weights(path, weights, params, dtype)
    network = build_network(found.spec.family, found.spec.params, dtype=dtype, **factory_kwargs)
    filled = {key: value.to(device, dtype) for key, value in found.tensors.items()}
    network.load_state_dict(filled, strict=True, assign=True)
    network.requires_grad_(False)
    return Model(found.spec, network)
