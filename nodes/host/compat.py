"""The handful of differences between the ComfyUI versions that we support (0.3.64 and newer)."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy_api.latest import io
from server import PromptServer
from torch import Tensor

from ...pixeldit_core.dtypes import dtype_name

log = logging.getLogger(__name__)

# Newer hosts patch models in a class that can stream weights; older ones have the plain one only.
Patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def advanced(widget: Any) -> Any:
    """Fold an input away under "advanced"; older hosts take the mark but not the keyword."""
    widget.extra_dict["advanced"] = True
    return widget


def searchable(schema: io.Schema, *aliases: str) -> io.Schema:
    """Words that find a node in the search, where the host knows such words."""
    if hasattr(schema, "search_aliases"):
        schema.search_aliases = list(aliases)
    return schema


def keep_scaled(config: Any, found: Any) -> dict[str, Tensor] | None:
    """What a model is filled with so that it keeps scaled float8 weights compact; None where the host can not.

    Tells the model config to use the host's layers for such weights. They multiply in full precision: what flows
    through the network is not rounded, as this file's weights alone were.
    """
    if not found.scaled or not hasattr(comfy.ops, "mixed_precision_ops"):
        return None
    config.quant_config = {"mixed_ops": True}
    tensors = {}
    for key in found.tensors:
        if key not in found.scaled:
            tensors[key] = found.tensors[key]
            continue
        weight, scale = found.scaled[key]
        told = {"format": dtype_name(weight.dtype), "full_precision_matrix_mult": True}
        layer = key.removesuffix(".weight")
        tensors |= {key: weight, f"{layer}.weight_scale": scale}
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)
    return tensors


def fill(model: Any, tensors: dict[str, Tensor], dtype: torch.dtype, patcher: Any) -> None:
    """Load weights into a model. Empties `tensors`, which the host does as it goes."""
    kept = {f"{key.removesuffix('.comfy_quant')}." for key in tensors if key.endswith(".comfy_quant")}
    if getattr(patcher, "is_dynamic", None) is None:
        model.load_model_weights(tensors, "")
    elif patcher.is_dynamic():  # streams the weights it was given, so they must have the right type
        own = {key: f"{key.rpartition('.')[0]}." in kept and not key.endswith(".bias") for key in tensors}
        cast = {key: value if own[key] else value.to(dtype) for key, value in tensors.items()}
        model.load_model_weights(cast, "", assign=True)
    else:
        model.load_model_weights(tensors, "", assign=False)  # copied into place, converted on the way


def plain_weights(model: Any, patches: bool) -> dict[str, Tensor]:
    """Every weight of a MODEL, as the host's save nodes would write them, with or without what patches change."""
    if not patches:
        model = model.clone()
        model.patches, model.patches_uuid = {}, uuid.uuid4()
    if hasattr(model, "state_dict_for_saving"):
        comfy.model_management.load_models_gpu([model])
        return model.state_dict_for_saving(None, None, None)
    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    return model.model.state_dict_for_saving(None, None, None)


def show_text(cls: type[io.ComfyNode], text: str) -> None:
    """A line of text on the node that runs, and in the log."""
    log.info("%s: %s", cls.__name__.removesuffix("Clone"), text.replace("\n", "; "))
    server = getattr(PromptServer, "instance", None)  # absent when a script drives the nodes
    if server is not None and cls.hidden.unique_id is not None:
        server.send_progress_text(text, cls.hidden.unique_id)
