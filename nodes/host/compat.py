"""The handful of differences between the ComfyUI versions that we support (0.3.64 and newer)."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy_api.latest import io
from torch import Tensor

log = logging.getLogger(__name__)

# Newer versions patch models in a class that can stream weights; older ones have only the plain one.
Patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def advanced(widget: Any) -> Any:
    """Fold an input away under "advanced"; older versions take the flag but not the keyword."""
    widget.extra_dict["advanced"] = True
    return widget


def searchable(schema: io.Schema, *aliases: str) -> io.Schema:
    """Other words that find a node in the search, where ComfyUI has them."""
    if hasattr(schema, "search_aliases"):
        schema.search_aliases = list(aliases)
    return schema


def resending(schema: io.Schema) -> io.Schema:
    """The texts of a node are sent again where its result is cached; with older versions, the page asks for them."""
    if hasattr(schema, "has_intermediate_output"):
        schema.has_intermediate_output = True
    return schema


def plain_weights(model: Any, patches: bool) -> dict[str, Tensor]:
    """Every weight of a MODEL on the CPU, as ComfyUI's save nodes would write them, with or without its patches.

    Weights that are not on the device as a whole (in Dynamic VRAM, --lowvram, --novram, or where a GPU is full) are
    given as parameters of a kind that applies its patches in `to` alone, and some of them once only.
    """
    if not patches:
        model = model.clone()
        model.patches, model.patches_uuid = {}, uuid.uuid4()
    if hasattr(model, "state_dict_for_saving"):
        comfy.model_management.load_models_gpu([model])
        stored = model.state_dict_for_saving(None, None, None)
        for key in [key for key, value in stored.items() if hasattr(value, "_qdata")]:
            # older versions (0.12 to 0.21) wanted it to be patched in `to`, but PyTorch dropped their class
            name = key.removeprefix("model.")
            stored[key] = model.patch_weight_to_device(name, model.load_device, return_weight=True)
    else:
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        stored = model.model.state_dict_for_saving(None, None, None)
    return {key: value.to("cpu") for key, value in stored.items()}


def in_training(network: torch.nn.Module) -> bool:
    """Whether ComfyUI's Train LoRA runs on a network. Older versions tell by what they attach to its layers."""
    if hasattr(comfy.model_management, "in_training"):
        return comfy.model_management.in_training
    attached = (entry for layer in network.modules() for entry in getattr(layer, "weight_function", ()))
    adapters = (entry for entry in attached if isinstance(entry, torch.nn.Module))
    return any(weight.requires_grad for adapter in adapters for weight in adapter.parameters())


def show_text(cls: type[io.ComfyNode], text: str) -> dict[str, list[str]]:
    """Text on a node, and in the log: the `ui` of its NodeOutput. "" removes what an earlier run has shown.

    Progress texts are no way to do it: newer pages clear them when a job ends. web/texts.js shows this one.
    """
    if text:
        log.info("%s: %s", cls.__name__.removesuffix("Clone"), text.replace("\n", "; "))
    return {"text": [text] if text else []}
