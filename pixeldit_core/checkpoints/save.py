"""Writing checkpoints: always .safetensors, always whole."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..model import Model
from .layouts import LAYOUTS
from .load import read_weights
from .metadata import write_metadata


def save_checkpoint(
    model_or_path: Model | str | Path,
    path: str | Path,
    layout: str = "canonical",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model, or the network of another file, as `.safetensors` with its params, class names and recipe.

    The file appears under its name when it is complete, not before.

    Args:
        layout: "canonical" keys, or "comfyui" as ComfyUI's own save nodes write them.
        dtype: None = as they are.

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
        if path.exists() and path.samefile(model_or_path):
            raise ValueError(f"{path.name} is the source itself; give another name.")
        source = read_weights(model_or_path)
        tensors = source.tensors
    prefix = LAYOUTS[layout]
    tensors = {prefix + key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    metadata = write_metadata(source.family.name, source.params, source.class_names, source.recipe)
    _write(tensors, path, metadata)
    return path


def _write(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """To a file beside the target, then renamed: never half of one under the real name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
