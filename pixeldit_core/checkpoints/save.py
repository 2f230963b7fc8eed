"""Writing checkpoints: always .safetensors, written atomically."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import atomic_path, check_target, explain_write_error, printable
from ..model import Model
from ..spec import ModelSpec
from .comfy_adaln import split_tensors
from .encoder_choice import INSIDE, NONE, EncoderChoice, place_encoder
from .encoder_inside import is_of_encoder
from .layouts import LAYOUTS
from .load import read_weights
from .locate import find_source
from .lora import find_lora_file, read_lora
from .lora_delta import WHOLE, Lora
from .metadata import DEPTH, write_metadata
from .quantized import quantized_parts
from .weight_sets import Group

log = logging.getLogger(__name__)

_BLOCK = 1 << 24  # bytes of a file that are hashed at a time


def save_checkpoint(
    model_or_path: Model | str | Path,
    path: str | Path,
    layout: str = "canonical",
    dtype: torch.dtype | None = None,
    weights: str = "auto",
    loras: Iterable[tuple[str | Path, float]] = (),
    encoder: str | Path | None = None,
) -> Path:
    """Write a model, or the network of another file, as `.safetensors` with its params, class names and settings.

    Written atomically: the file is complete or not there. Name and SHA-256 of the other file and of the LoRAs go into
    the metadata.

    Args:
        layout: "canonical" keys, or "comfyui": text-to-image as ComfyUI's own loader takes it, other families as its
            save nodes write them.
        dtype: None = as stored. float8 is for the matrices of the blocks; the rest is bfloat16 then. A frozen encoder
            keeps its own in place of float8 and float16.
        weights: of another file: "ema", "raw", or "auto", as in `load_checkpoint`.
        loras: files and strengths, merged into the weights in float32.
        encoder: of a PixelDiT2: None = as it is, with its encoder if that is in the model or file; "none" = without
            it; the path of an encoder as of `load_checkpoint` = with that one. The metadata says whether it is inside.

    Raises:
        ValueError: an encoder that does not fit, or that was given for a network without one; unknown layout, a target
            that is not `.safetensors` or is the source itself, an unreadable source or LoRA, a target that cannot be
            written.
    """
    path = Path(path)
    loras = [(find_lora_file(Path(lora))[0], strength) for lora, strength in loras]
    files = () if isinstance(model_or_path, Model) else find_source(model_or_path).files
    encoders = () if encoder in (None, NONE, INSIDE) else find_source(encoder).files
    _check_target(path, layout, *files, *encoders, *(lora for lora, _ in loras))
    origin: dict[str, Any] = {}
    if isinstance(model_or_path, Model):
        spec, tensors = with_chosen_encoder(model_or_path.spec, model_or_path.network.state_dict(), encoder)
        meta, scaled = tensors, {}
    else:
        exact = dtype if dtype is not None and dtype.itemsize > 1 else None
        chosen = INSIDE if encoder is None else encoder
        source = read_weights(model_or_path, weights, compute_dtype=exact, encoder=chosen)
        spec, tensors, meta, scaled = source.spec, source.tensors, source.meta, source.scaled
        origin["files"] = hashes(*files)
    if encoders:
        origin["encoder"] = hashes(*encoders)
    read = []
    if loras:
        shapes = {key: tuple(value.shape) for key, value in meta.items()}
        read = [(read_lora(lora, shapes), strength) for lora, strength in loras]
        for lora, _ in read:
            for note in lora.notes:
                log.warning("%s: %s.", lora.source, note)
        origin["loras"] = [{**hashes(lora), "strength": strength} for lora, strength in loras]
    return write(spec, tensors, path, layout, dtype, origin, read, scaled if dtype is None else {})


def with_chosen_encoder(
    spec: ModelSpec, tensors: Mapping[str, Tensor], encoder: str | Path | None
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Spec and weights of a network, without its encoder, with it or with another, as `save_checkpoint` takes it."""
    group = Group(spec.family, "")
    placed = place_encoder(dict(tensors), [group], "auto", EncoderChoice(encoder or INSIDE), spec.source or "the model")
    if placed.tensors.keys() == tensors.keys() and encoder in (None, NONE, INSIDE):
        return spec, placed.tensors
    shapes = {key: tuple(value.shape) for key, value in placed.tensors.items()}
    depth = spec.family.params_from(shapes)[DEPTH]
    return dataclasses.replace(spec, params=dataclasses.replace(spec.params, **{DEPTH: depth}, **placed.params)), (
        placed.tensors
    )


def write(
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    path: Path,
    layout: str = "canonical",
    dtype: torch.dtype | None = None,
    origin: Mapping[str, Any] | None = None,
    loras: Iterable[tuple[Lora, float]] = (),
    scaled: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> Path:
    """Write tensors under canonical names, with the spec of their network; arguments as of `save_checkpoint`.

    Args:
        scaled: float8 weights to write as they are, each with its scale [], in place of those among `tensors`.

    Raises:
        ValueError: as `save_checkpoint`.
    """
    _check_target(path, layout)
    chosen = LAYOUTS[layout][spec.family.name]
    kept = {
        key: pair
        for key, pair in (scaled or {}).items()
        if not any(key in lora.deltas for lora, _ in loras)
        and not (chosen.split and WHOLE.fullmatch(key))  # halves would share one scale
    }
    written = {
        key: kept[key][0] if key in kept else _finish(key, tensors[key].detach().cpu(), dtype, loras).contiguous()
        for key in tensors
    }
    for key, (weight, scale) in kept.items():
        written |= quantized_parts(key, weight, scale)
    if chosen.split:
        written = split_tensors(written)
    written = {chosen.prefix + key: value for key, value in _unshared(written)}
    return write_tensors(written, path, write_metadata(spec, origin))


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """Write a `.safetensors` file, completely or not at all.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        with atomic_path(path) as part:
            save_file(dict(tensors), part, dict(metadata))
    except (SafetensorError, OSError) as error:
        reason, way_out = explain_write_error(error, path)
        raise ValueError(
            f"{printable(path)} could not be written: {reason}. No partial file was left. {way_out}"
        ) from error
    return path


def _unshared(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors that share no memory, as safetensors requires: a pickled file may have one under two names."""
    seen = set()
    for key, value in tensors.items():
        address = value.untyped_storage().data_ptr()
        yield key, value.clone() if address in seen else value
        seen.add(address)


def hashes(*files: Path) -> dict[str, str]:
    """SHA-256 of files, by name."""
    digests = {}
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
        digests[file.name] = digest.hexdigest()
    return digests


def _check_target(path: Path, layout: str, *sources: Path) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f'layout "{layout}" is not known; there are {", ".join(LAYOUTS)}.')
    if path.suffix.lower() != ".safetensors":
        if path.name.lower() == ".safetensors":
            raise ValueError(f"{path} is an ending without a name. Write a name before .safetensors.")
        raise ValueError(f"{path.name}: only .safetensors is written; choose a name that ends so.")
    try:
        check_target(path)
        is_source = path.exists() and any(file.exists() and path.samefile(file) for file in sources)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        reason, way_out = explain_write_error(error, path)
        raise ValueError(f"{printable(path)} cannot be written: {reason}. {way_out}") from error
    if is_source:
        raise ValueError(f"{path.name} is the source itself; choose another name.")


def _finish(key: str, value: Tensor, dtype: torch.dtype | None, loras: Iterable[tuple[Lora, float]]) -> Tensor:
    """A weight with the LoRAs merged, in the dtype that the file has for it."""
    dtype = dtype or value.dtype
    if is_of_encoder(key) and dtype.itemsize < 4 and dtype != torch.bfloat16 and value.dtype.itemsize > 1:
        dtype = value.dtype  # large values run through it, which float16 cannot hold
    if dtype.itemsize == 1 and (value.ndim < 2 or "blocks." not in key):
        dtype = value.dtype if value.dtype.itemsize == 1 else torch.bfloat16
    for lora, strength in loras:
        if key in (deltas := lora.deltas):
            value = deltas[key].added_to(value.float(), strength)
    if dtype.itemsize == 1 and value.dtype != dtype:  # a cast of larger values gives NaN
        limit = torch.finfo(dtype).max
        value = value.float().clamp(-limit, limit)
    written = value.to(dtype)
    if dtype == torch.float16 and value.dtype != dtype and (written.isinf() & ~value.isinf()).any():
        raise ValueError(
            f"{key} has values up to {value.abs().max().item():.4g}, more than fp16 can hold (65,504): they would "
            "become infinite. Choose bf16 or fp32."
        )
    return written
