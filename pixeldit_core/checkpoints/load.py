"""From a path to a network: read, detect, load the weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..model import Model
from ..spec import ModelSpec
from ..text import shorten_list
from .config import Config, read_config
from .detect import detect
from .encoder_choice import AS_STORED, EncoderChoice, place_encoder
from .encoder_inside import with_plain_names
from .header import parse_header
from .lazy import LazyTensors, StoredFile
from .locate import find_source
from .lora_run import merge_lora_run
from .metadata import DEPTH, declared_weights
from .read import read_source
from .weight_sets import Group, find_groups
from .wrappers import plain_names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A validated state dict under canonical names, with the spec and the network that it is for."""

    spec: ModelSpec
    network: nn.Module  #               on "meta"
    tensors: Mapping[str, Tensor]  #    of a quantized file: dequantized on access; iterate only once
    group: Group
    storage: str | None = None  #       "fp8", "mxfp8", "int8": how the file keeps most of its large matrices
    meta: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])  # shapes and dtypes of `tensors`, on "meta"
    others: tuple[str, ...] = ()  #     names of the file's other sets of weights, which were not taken
    scaled: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])
    #                                   float8 as stored, and its scale
    encoder: Path | None = None  #      its file, where it is not the one inside of the checkpoint


def load_checkpoint(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    encoder: str | Path | None = None,
    **factory_kwargs: Any,
) -> Model:
    """A model from a file, ready to sample.

    Args:
        path: a `.safetensors`, `.ckpt`, `.pth`, `.pt` or `.bin` file, the index of a sharded one, or a diffusers
            folder. A config beside it is read for what shapes cannot provide.
        weights: "ema", "raw", "auto" (what the authors' own inference takes, where the file has both), or the name of
            one of several sets of weights, as in `CheckpointInfo.sets`.
        params: what neither the file nor its shapes determine, by name, such as {"use_pixel_abs_pos": False}. Of a
            PixelDiT2: single_silu_cond, in_context_start, encoder_num_heads, noise_scale; and lora_alpha, of a
            checkpoint of its LoRA training, instead of the rank.
        encoder: of a PixelDiT2, the file or folder of its frozen DINOv3 (of timm, transformers or Meta, or a checkpoint
            that has it inside), which replaces one inside of the file. None = the one inside, else the only one that
            fits in a folder "encoder" beside the checkpoint, or in the checkpoint's own folder; "inside" = that of the
            file or none; "none" = without: only calls without grounding work then.
        factory_kwargs: operations and attention function of the network.

    Raises:
        ValueError: not a readable checkpoint; another kind of file; weights asked for and not there; a missing,
            unexpected or misshapen tensor; params or a config that are unknown or contradict the shapes; a quantized
            tensor of a format that is not supported, or whose scale or description is missing or damaged; an encoder
            that is needed and not there, that does not fit, or that was given for a network without one.
    """
    loaded = read_weights(path, weights, params, dtype, encoder, dtype=dtype, **factory_kwargs)
    dtypes = {key: value.dtype for key, value in loaded.network.state_dict().items()}
    state = {key: value.to(device, dtypes[key]) for key, value in loaded.tensors.items()}
    loaded.network.load_state_dict(state, strict=True, assign=True)
    return Model(loaded.spec, loaded.network)


def read_weights(
    path: str | Path,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    compute_dtype: torch.dtype | None = None,
    encoder: str | Path | None = None,
    more_encoders: Iterable[str | Path] = (),
    **factory_kwargs: Any,
) -> Weights:
    """The tensors of a network under canonical names, all present and of the right shape.

    They are as stored, float8 without scales included; other quantized ones are dequantized on access.

    Args:
        compute_dtype: of dequantized weights; None = what the file has for those that it does not quantize.
        encoder: as of `load_checkpoint`.
        more_encoders: files among which to look for an encoder where none is inside or beside the checkpoint; taken
            only then.
        factory_kwargs: of the network: operations, attention, dtype.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    source = find_source(path)
    tensors, metadata = read_source(source)
    config = read_config(source)
    declared = declared_weights(metadata, source.name, source.folder.name)
    choice = EncoderChoice(encoder, source, more_encoders)
    return take_weights(
        tensors, metadata, config, source.name, weights, params, compute_dtype, declared, choice, **factory_kwargs
    )


def take_weights(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    config: Config,
    name: str,
    weights: str = "auto",
    params: Mapping[str, Any] | None = None,
    compute_dtype: torch.dtype | None = None,
    declared: str = "",
    encoder: EncoderChoice = AS_STORED,
    **factory_kwargs: Any,
) -> Weights:
    """`read_weights` of tensors that are in memory already; `name` is for messages, `declared` as of `find_groups`."""
    tensors, params = {key: tensors[stored] for key, stored in plain_names(tensors, name).items()}, dict(params or {})
    tensors = merge_lora_run(tensors, weights, declared, name, params)
    groups = find_groups(tensors, declared)
    placed = place_encoder(with_plain_names(tensors, groups, name), groups, weights, encoder, name)
    if encoder.changes:
        params.pop(DEPTH, None)
    tensors = placed.tensors
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    dtypes = {key: value.dtype for key, value in tensors.items()}
    header = parse_header(shapes, dtypes, metadata, groups, name, tensors)
    detected = detect(header, metadata, config, name, weights, params, {placed.source: placed.params}, **factory_kwargs)
    group = detected.group
    if detected.guessed:
        guesses = ", ".join(f"{key} = {value}" for key, value in detected.guessed.items())
        log.info("%s: not in the file, taken as published: %s.", name, guesses)
    if compute_dtype is None:
        stored_dtype = dtypes[group.prefix + group.family.markers[0]]
        compute_dtype = stored_dtype if stored_dtype in group.family.dtypes else torch.float32
    others = tuple(other.name for other in header.groups if other != group)
    if others:
        log.info("%s: took %s, %s weights; also in it: %s.", name, group.name, group.weights, shorten_list(others, 5))
    lazy = LazyTensors(StoredFile(tensors, metadata, name), header, detected, compute_dtype)
    return Weights(
        spec=detected.spec,
        network=detected.network,
        tensors=lazy if header.quantized else dict(lazy),
        group=group,
        others=others,
        storage=header.quantization(group),
        meta=lazy.meta(),
        scaled=lazy.scaled(),
        encoder=placed.file,
    )
