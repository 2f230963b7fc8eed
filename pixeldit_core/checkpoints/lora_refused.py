"""Files that are no LoRA for a network: what each is, and what to do with it instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..text import shorten_list
from .comfy_adaln import join_shapes
from .layouts import find_refused
from .weight_sets import find_groups

SHOWN = 5  # names in a message
# Part of a tensor's name, and the kind of adapter that it means
_ADAPTERS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".oft_": "OFT",
}
# Part of a module's name, with "_" for ".", and what such a file was made for
_MADE_FOR = {
    r"lq_proj_": "PiD",
    r"patch_blocks_\d+_(norm|mlp|attn_(qkv|proj)|adaLN_modulation)_(x|y|img|txt)": "PixelDiT, text-to-image",
    r"patch_blocks_\d+_(mlp_w|attn_(qkv|proj)|adaLN_modulation_0)": "PixelDiT, class-conditional",
    r"patch_blocks_\d+_attention_": "PixelHDM",
    r"pixel_blocks_\d+_": "another size or variant of PixelDiT",
    r"double_blocks|single_transformer_blocks": "Flux",
    r"joint_blocks": "Stable Diffusion 3",
    r"down_blocks|input_blocks|up_blocks|mid_block": "Stable Diffusion",
    r"transformer_blocks": "another model of diffusers",
    r"lora_te|text_model|text_encoder": "a text encoder",
}


def check_adapter(tensors: Iterable[str], metadata: Mapping[str, str], source: str) -> None:
    """Make sure that a file has no adapter of another kind.

    Raises:
        ValueError: a LoRA of PixelDiT2, DoRA, LoHa, LoKr, OFT.
    """
    tensors = list(tensors)
    bare = any(key.endswith((".lora_A", ".lora_B")) for key in tensors)  # all others end in ".weight"
    if bare or metadata.get("format", "").startswith("pixeldit2"):
        raise ValueError(f"{source} is a LoRA of PixelDiT2, another network of that name. Choose one for PixelDiT.")
    for key in tensors:
        if kind := next((kind for part, kind in _ADAPTERS.items() if part in key), None):
            raise ValueError(
                f"{source} is {kind}, not a plain LoRA (it has {key}). Only plain LoRA can be merged here: load it in "
                "ComfyUI with the node PixelDiT LoRA, or merge it with the program that trained it."
            )


def explain_no_lora(tensors: Mapping[str, Tensor], source: str) -> str:
    """The message for a file without any pair of a LoRA."""
    shapes = join_shapes({key: tuple(value.shape) for key, value in tensors.items()})
    if groups := find_groups(shapes):
        return f"{source} is a whole checkpoint ({groups[0].family.title}), not a LoRA. Load it as the model itself."
    if kind := find_refused(shapes):
        return f"{source} is {kind.title}, and no LoRA of PixelDiT. Choose another file."
    return (
        f"{source} is not a LoRA. It has {shorten_list(sorted(tensors), SHOWN) or 'no tensors'}. Choose another file."
    )


def explain_no_match(modules: Iterable[str], source: str) -> str:
    """The message for a LoRA none of whose modules is in the network."""
    modules = sorted(modules)
    flat = " ".join(modules).replace(".", "_")
    made_for = next((title for part, title in _MADE_FOR.items() if re.search(part, flat)), "another model")
    return (
        f"{source}: none of its {len(modules)} modules is in this network: {shorten_list(modules, SHOWN)}. It was made "
        f"for {made_for}. Choose a LoRA for this model, or the model that it was made for."
    )
