"""Float8 weights that this ComfyUI or device cannot keep: plain in memory, and again what they were when saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...pixeldit_core.checkpoints.load import Weights

Scales = dict[str, tuple[torch.dtype, Tensor]]  # by the name of a weight, its type in the file and its scale []


def read_scales(read: Weights) -> Scales:
    """What is needed to write the scaled weights of a file as they were."""
    return {key: (weight.dtype, scale.detach().clone()) for key, (weight, scale) in read.scaled.items()}


def to_float8(scales: Scales, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The weights that are still exactly those of the file, each as float8 with its scale; not those with a LoRA."""
    found = {key: _divided(tensors[key], *entry) for key, entry in scales.items() if key in tensors}
    return {key: pair for key, pair in found.items() if torch.equal(_multiplied(*pair, tensors[key]), tensors[key])}


def _divided(weight: Tensor, dtype: torch.dtype, scale: Tensor) -> tuple[Tensor, Tensor]:
    return (weight.float() / scale).to(dtype), scale


def _multiplied(weight: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    return (weight.float() * scale).to(like.dtype)
