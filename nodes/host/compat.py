"""The handful of differences between the ComfyUI versions that we support (0.3.64 and newer)."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

log = logging.getLogger(__name__)

_NETWORK = "diffusion_model."  # before the keys of its weights, in those of patches

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
    """Every weight of a MODEL on the CPU, as ComfyUI's save nodes would write them, with or without its patches."""
    if not patches:
        model = model.clone()
        model.patches, model.patches_uuid = {}, uuid.uuid4()
    if hasattr(model, "state_dict_for_saving"):
        comfy.model_management.load_models_gpu([model])
        stored = model.model.state_dict_for_saving(_network_weights(model), None, None, None)
    else:
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        stored = model.model.state_dict_for_saving(None, None, None)
    return {key: value.to("cpu") for key, value in stored.items()}


def _network_weights(model: Any) -> dict[str, Tensor]:
    """The tensors of a network, patched also where the weights are not on the device as a whole.

    In Dynamic VRAM, with --lowvram or --novram, or where a GPU is full, ComfyUI patches a layer when it is called. Its
    own `state_dict_for_saving` gives parameters of a kind that patches in `to` alone, of which some can be asked once
    only, and it raises for those packed as integers.
    """
    network = model.model.diffusion_model
    tensors = network.state_dict()
    for key in tensors.keys() & {key.removeprefix(_NETWORK) for key in model.patches}:
        module, _, name = key.rpartition(".")
        layer = comfy.utils.get_attr(network, module) if module else network
        waits = hasattr(layer, "comfy_cast_weights") and not getattr(layer, "comfy_patched_weights", False)
        if waits and name in ("weight", "bias"):
            tensors |= _patched(model, key)
    return tensors


def _patched(model: Any, key: str) -> dict[str, Tensor]:
    """A weight of the network with its patches, on the CPU at once: the device may have no room for two."""
    weight = model.patch_weight_to_device(_NETWORK + key, device_to=model.load_device, return_weight=True)
    # a packed one consists of several tensors
    parts = weight.state_dict(key) if hasattr(weight, "state_dict") else {key: weight}
    return {name: part.to("cpu") for name, part in parts.items()}


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
