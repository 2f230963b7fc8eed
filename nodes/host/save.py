"""A MODEL as a checkpoint file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ...pixeldit_core.checkpoints.config import Config
from ...pixeldit_core.checkpoints.encoder_choice import INSIDE, NONE, EncoderChoice
from ...pixeldit_core.checkpoints.load import take_weights
from ...pixeldit_core.checkpoints.save import write
from .compat import plain_weights
from .packed import unpack
from .prefix import next_path
from .scales import to_float8
from .spec import find_spec

_PREFIX = "model.diffusion_model."


def save_model(
    model: Any, prefix: str, layout: str, dtype: torch.dtype | None, patches: bool, encoder: bool = True
) -> Path:
    """Write a MODEL, ours or ComfyUI's own PixelDiT, into the output folder; never over another file.

    Args:
        prefix: of the file's name, as `next_path` takes it; a number is added.
        encoder: write the frozen encoder of a PixelDiT2, too, if it was loaded.
        patches: write the weights as LoRAs and merges have changed them, or as they were loaded.

    Raises:
        ValueError: a MODEL that is no PixelDiT; what `next_path` and `write` raise.
    """
    spec = find_spec(model)
    if spec is None:
        raise ValueError("this model is not a PixelDiT. Save other models with ModelSave.")
    path = next_path(prefix)
    stored = {key: value for key, value in plain_weights(model, patches).items() if key.startswith(_PREFIX)}
    stored = unpack(stored, model.model.diffusion_model, _PREFIX)
    params = dataclasses.asdict(spec.params)
    choice = EncoderChoice(INSIDE if encoder else NONE)
    weights = take_weights(stored, {}, Config(), spec.source, params=params, encoder=choice)
    kept = {name: getattr(spec, name) for name in ("class_names", "settings", "weights", "about")}
    written = dataclasses.replace(weights.spec, **kept)
    scaled: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    if dtype is None:
        scaled = {**weights.scaled, **to_float8(getattr(model.model, "scales", {}), weights.tensors)}
    return write(written, weights.tensors, path, layout, dtype, scaled=scaled)
