"""Writing checkpoints: always .safetensors, always whole."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import whole_file
from ..model import Model
from .layouts import LAYOUTS
from .load import read_weights
from .metadata import write_metadata
from .split import split_tensors


def save_checkpoint(
    model_or_path: Model | str | Path,
    path: str | Path,
    layout: str = "canonical",
    dtype: torch.dtype | None = None,
    weights: str = "auto",
) -> Path:
    """Write a model, or the network of another file, as `.safetensors` with its params, class names and recipe.

    The file appears under its name when it is complete, not before.

    Args:
        layout: "canonical" keys, or "comfyui": text-to-image as ComfyUI's own loader takes it, other families as its
            save nodes write them.
        dtype: None = as they are; float8 is for the matrices of the blocks, all else is bfloat16 then.
        weights: of another file: "ema", "raw", or "auto", as in `load_checkpoint`.

    Raises:
        ValueError: unknown layout, a target that is not `.safetensors` or is the source itself, an unreadable source.
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise ValueError(f'layout "{layout}" is not known; there are {", ".join(LAYOUTS)}.')
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name}: only .safetensors is written; give a name that ends so.")
    if isinstance(model_or_path, Model):
        source, tensors = model_or_path, model_or_path.network.state_dict()
    else:
        if path.exists() and Path(model_or_path).exists() and path.samefile(model_or_path):
            raise ValueError(f"{path.name} is the source itself; give another name.")
        source = read_weights(model_or_path, weights)
        tensors = source.tensors
    chosen = LAYOUTS[layout][source.family.name]
    if chosen.split:
        tensors = split_tensors(tensors)
    tensors = {chosen.prefix + key: _cast(key, value.detach(), dtype).contiguous() for key, value in tensors.items()}
    metadata = write_metadata(source.family.name, source.params, source.class_names, source.recipe)
    with whole_file(path) as part:
        save_file(tensors, part, metadata)
    return path


def _cast(key: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.cpu()
    if dtype is None or dtype.itemsize > 1:
        return value.to(dtype or value.dtype)
    if value.ndim < 2 or "blocks." not in key:
        return value.to(torch.bfloat16)
    limit = torch.finfo(dtype).max  # beyond it, a cast gives NaN
    return value.float().clamp(-limit, limit).to(dtype)
