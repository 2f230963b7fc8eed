"""A frozen encoder from a file of its own: of timm, of transformers, of Meta, or a checkpoint that has one inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dtypes import dtype_name
from ..families import Shapes
from .encoder_names import Names, find_prefixes, parse_names, under_timm_names
from .encoder_needed import title_of, where_to_get
from .encoder_refused import check_config, check_origin, explain_none, explain_other
from .locate import Source, find_source, read_json
from .read import read_source, read_source_shapes
from .weight_sets import role_of
from .wrappers import plain_names

PLACE = "dino_conditioner.encoder."  # of an encoder inside of a network
_CONFIGS = ("config.json", "preprocessor_config.json")


class NoEncoder(ValueError):
    """A file that is no DINOv3 at all, for those who look for one among others."""


class UnreadableFile(ValueError):
    """A file of which nothing is known but that it cannot be read."""


@dataclass(frozen=True)
class EncoderHeader:
    """What the header of an encoder's file declares."""

    names: Names
    heads: int | None  #  None = not declared, which means 64 channels each
    source: str  #        name for messages
    is_inside: bool  #    of a checkpoint, not a file of its own

    @property
    def width(self) -> int:
        return self.names.width

    def check_width(self, width: int, checkpoint: str) -> None:
        """Make sure that it is the encoder that a checkpoint needs.

        Raises:
            ValueError: it has another width.
        """
        if self.width != width:
            raise ValueError(
                f"{self.source} is {title_of(self.width)}, and {checkpoint} needs {title_of(width)}. "
                f"{where_to_get(width)}"
            )


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder to put into a network."""

    header: EncoderHeader
    tensors: Mapping[str, Tensor]  # under timm's names, the biases of queries and values always there


def read_encoder(path: str | Path) -> Encoder:
    """An encoder from a file or folder.

    Args:
        path: `model.safetensors` of timm or transformers, a folder with one (its config.json is read for the number of
            heads), Meta's `.pth`, or a checkpoint with an encoder inside.

    Raises:
        ValueError: not a readable file; another model, or a DINOv3 that no PixelDiT2 was trained with (ConvNeXt, gated
            MLP, satellite images); a tensor that is missing, misshapen or unexpected; quantized weights.
    """
    source = find_source(path)
    tensors, metadata = read_source(source)
    stored = plain_names(tensors, source.name)
    tensors = {name: tensors[key] for name, key in stored.items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    header = _parse(shapes, {name: value.dtype for name, value in tensors.items()}, metadata, source)
    return Encoder(header, under_timm_names(tensors, header.names))


def read_encoder_header(path: str | Path) -> EncoderHeader:
    """The same without its tensors' data; raises ValueError as `read_encoder` does."""
    try:
        source = find_source(path)
        shapes, dtypes, metadata = read_source_shapes(source)
        stored = plain_names(shapes, source.name)
    except ValueError as error:
        raise UnreadableFile(str(error)) from error
    return _parse(
        {name: shapes[key] for name, key in stored.items()},
        {name: dtypes[key] for name, key in stored.items()},
        metadata,
        source,
    )


def _parse(
    shapes: Shapes, dtypes: Mapping[str, torch.dtype], metadata: Mapping[str, str], source: Source
) -> EncoderHeader:
    configs = {name: _read_config(source.folder / name) for name in _CONFIGS}
    prefixes = find_prefixes(shapes)
    if not prefixes:
        raise NoEncoder(explain_none(shapes, source.name))
    prefix = min(prefixes, key=lambda prefix: ("ema", "raw", "unknown", "other").index(role_of(prefix)))
    inner = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
    if reason := explain_other(inner, source.name):
        raise ValueError(reason)
    check_origin(source.files[0], metadata, configs.values(), source.name)
    names = parse_names(shapes, prefix, source.name)
    for key in names.stored.values():
        if not dtypes[key].is_floating_point or dtypes[key].itemsize < 2:
            raise ValueError(
                f"{source.name} is quantized ({key[:80]} is {dtype_name(dtypes[key])}), which an encoder must not be. "
                "Get the original file."
            )
    config = configs["config.json"]
    heads = None
    if prefix == "" and ("hidden_size" in config or "model_type" in config):
        heads = check_config(config, names.width, names.depth, source.name)
    return EncoderHeader(names, heads, source.name, PLACE in prefix)


def _read_config(path: Path) -> dict[str, Any]:
    """Of transformers or timm; empty where there is none, or none that can be read."""
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
