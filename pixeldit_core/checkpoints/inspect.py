"""What a checkpoint contains, or why it cannot be loaded, from its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..labels import Names
from ..settings import SamplingSettings
from ..spec import ModelSpec
from .config import read_config
from .descriptions import FORMAT
from .detect import detect
from .encoder_inside import has_encoder, needed_width, with_plain_names
from .header import parse_header
from .locate import find_source
from .lora_run import merge_lora_run
from .metadata import declared_weights
from .read import read_source_shapes, read_source_texts
from .refused_kinds import find_refused
from .weight_sets import find_groups
from .wrappers import plain_names

_KNOWN = ("ema", "raw")
_PLACE = "dino_proj"  # in a name of every network that has a place for an encoder, whatever wraps it


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file contains, from its header."""

    path: Path
    title: str
    spec: ModelSpec | None = None  #     None = refused
    layout: str = ""  #                 prefix of the weights that would be loaded
    weights: tuple[str, ...] = ()  #    "ema", "raw"
    sets: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> "ema", "raw", "unknown" or "other"
    dtype: torch.dtype | None = None
    quantization: str | None = None  #  "fp8", "mxfp8", "int8": of most of the large matrices
    count: int = 0  #                   parameters of the network
    encoder: bool | None = None  #      whether the network's encoder is inside; None = it has none
    refused: str | None = None  #       why it cannot be loaded

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


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """What a file or folder contains: family, layout, weights, sizes, dtype. Reads no tensor data.

    For a file that is of another kind, or does not fit its family, `refused` is the reason.

    Raises:
        ValueError: not a readable checkpoint at all.
    """
    path, source = Path(path), find_source(path)
    shapes, dtypes, metadata = read_source_shapes(source)
    stored = plain_names(shapes, source.name)
    shapes = {key: shapes[name] for key, name in stored.items()}
    dtypes = {key: dtypes[name] for key, name in stored.items()}
    groups = find_groups(shapes, declared := declared_weights(metadata, source.name, source.folder.name))
    try:
        meta = {key: torch.empty(shape, dtype=dtypes[key], device="meta") for key, shape in shapes.items()}
        meta = merge_lora_run(meta, "auto", declared, source.name, {})
        groups = find_groups(meta, declared)
        meta = with_plain_names(meta, groups, source.name)
        shapes, dtypes = {key: tuple(value.shape) for key, value in meta.items()}, {k: v.dtype for k, v in meta.items()}
        texts = None
        if any(key.endswith(FORMAT) for key in shapes):  # the formats are in tensors
            found = read_source_texts(source, FORMAT)
            texts = {key: found[name] for key, name in stored.items() if name in found}
        header = parse_header(shapes, dtypes, metadata, groups, source.name, texts)
        detected = detect(header, metadata, read_config(source), source.name)
    except ValueError as error:
        kind = find_refused(shapes, variants_only=bool(groups))
        title = kind.title if kind else groups[0].family.title if groups else "unknown"
        return CheckpointInfo(path, title, refused=str(error))
    group = detected.group
    has_place = needed_width(shapes, group) is not None
    return CheckpointInfo(
        path=path,
        title=group.family.title,
        layout=group.prefix or "canonical",
        weights=tuple(sorted({entry.weights for entry in groups if entry.role == group.role or entry.role in _KNOWN})),
        sets={entry.name: entry.role for entry in groups},
        spec=detected.spec,
        dtype=dtypes[group.prefix + group.family.markers[0]],
        quantization=header.quantization(group),
        encoder=has_encoder(shapes, group) if has_place else None,
        count=sum(value.numel() for value in detected.network.state_dict().values()),
    )


def lacks_encoder(path: str | Path) -> bool:
    """Whether a file or folder is of a network with an encoder that is not inside.

    Looks at the names alone, and no further where no network in it has a place for one.

    Raises:
        ValueError: as `inspect_checkpoint`.
    """
    shapes, _, _ = read_source_shapes(find_source(path))
    return any(_PLACE in name for name in shapes) and inspect_checkpoint(path).encoder is False
