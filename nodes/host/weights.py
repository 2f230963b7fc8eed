"""The weights of a file, into a model of ComfyUI's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import comfy.ops
import torch
from torch import Tensor

from ...pixeldit_core.checkpoints.encoder_inside import is_of_encoder
from ...pixeldit_core.checkpoints.load import Weights
from ...pixeldit_core.encoders.dinov3 import exact_dtype


def keeps_scaled(config: Any) -> bool:
    """Whether ComfyUI has layers for scaled weights that read what is with each of them in the file: the first ones
    (0.3.73 to 0.3.77) took a table by name instead, and ignore the scales of others.
    """
    return hasattr(comfy.ops, "mixed_precision_ops") and hasattr(config, "quant_config")


def scaled_tensors(config: Any, read: Weights) -> dict[str, Tensor] | None:
    """What to load so that scaled float8 weights stay compact; None where the file or ComfyUI has no such weights.

    Sets the model config to use ComfyUI's layers for them. Those multiply in full precision: activations are not
    rounded, only the weights of this file were.
    """
    if not read.scaled or not keeps_scaled(config):
        return None
    config.quant_config = {"mixed_ops": True}
    tensors = {}
    for key in read.tensors:
        if key not in read.scaled:
            tensors[key] = read.tensors[key]
            continue
        weight, scale = read.scaled[key]
        settings = {"format": str(weight.dtype).removeprefix("torch."), "full_precision_matrix_mult": True}
        layer = key.removesuffix(".weight")
        tensors |= {key: weight, f"{layer}.weight_scale": scale}
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)
    return tensors


def load_weights(model: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype, patcher: Any) -> None:
    """Load weights into a model. Empties `tensors`, as ComfyUI does while it loads."""
    if getattr(patcher, "is_dynamic", None) is None:
        model.load_model_weights(tensors, "")
    elif patcher.is_dynamic():  # streams the tensors that it is given, so they must have the right type
        scaled = {key.removesuffix(".comfy_quant") for key in tensors if key.endswith(".comfy_quant")}
        kept = {key for key in tensors if key.rpartition(".")[0] in scaled and not key.endswith(".bias")}
        dtypes = {key: exact_dtype(dtype) if is_of_encoder(key) else dtype for key in tensors}
        cast = {key: value if key in kept else value.to(dtypes[key]) for key, value in tensors.items()}
        model.load_model_weights(cast, "", assign=True)
    else:
        model.load_model_weights(tensors, "", assign=False)  # copied into place, converted on the way
