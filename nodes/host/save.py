"""A MODEL as a checkpoint file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...pixeldit_core.checkpoints.config import Config
from ...pixeldit_core.checkpoints.load import take_weights
from ...pixeldit_core.checkpoints.save import write
from .compat import plain_weights
from .model import find_spec

_PREFIX = "model.diffusion_model."


def save_model(model: Any, name: str, layout: str, dtype: torch.dtype | None, patches: bool) -> Path:
    """Write a MODEL, ours or the host's own PixelDiT, into the output folder; never over another file.

    Args:
        name: with subfolders; a number is added.
        patches: whether what LoRAs and merges changed is written, or the weights below.

    Raises:
        ValueError: a MODEL that is no PixelDiT; a name that leads out of the output folder; what `write` raises.
    """
    known = find_spec(model)
    if known is None:
        raise ValueError("this model is no PixelDiT. Save other models with ComfyUI's own ModelSave.")
    path = _free(name)
    stored = {key: value for key, value in plain_weights(model, patches).items() if key.startswith(_PREFIX)}
    found = take_weights(stored, {}, Config(), known.source, params=dataclasses.asdict(known.params))
    spec = dataclasses.replace(found.spec, class_names=known.class_names, settings=known.settings)
    return write(spec, found.tensors, path, layout, dtype)


def _free(name: str) -> Path:
    """The next free numbered name in the output folder."""
    try:
        folder, stem, counter, _, _ = folder_paths.get_save_image_path(name, folder_paths.get_output_directory())
    except Exception as error:  # the host raises a plain Exception for a name that leads out of the folder
        raise ValueError(f'"{name}" leads out of the output folder. Give a name below it.') from error
    return Path(os.path.join(folder, f"{stem}_{counter:05}_.safetensors"))
