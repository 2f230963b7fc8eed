"""Files that are no LoRA for a network: what each is, and what to do with it instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from ..families import Shapes
from ..text import shorten_list
from .comfy_adaln import join_shapes
from .lora_folder import is_state_name, is_text_name, other_half
from .lora_pixeldit2 import check_editing
from .lora_text import are_embeddings, is_text_half
from .refused_kinds import find_refused
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
# The same of those that ComfyUI does not add, either
_OTHER_ADAPTERS = {
    ".lora_E": "AdaLoRA",
    ".vera_lambda_": "VeRA",
    ".ia3_l": "IA3",
    ".boft_": "BOFT",
    ".hra_u": "HRA",
    ".bone_block": "Bone",
    ".miss_block": "MiSS",
    ".fourierft_": "FourierFT",
    ".randlora_": "RandLora",
    ".vblora_": "VB-LoRA",
    ".c3a_kernel": "C3A",
}
_BASE = ".base_layer.weight"  # a weight that PEFT has wrapped
_OPTIMIZER = ("exp_avg", "exp_avg_sq", "momentum_buffer", "max_exp_avg_sq")  # what optimizers keep for a weight
_TEXT = "a text encoder (a language model)"
# Part of a module's name, with "_" for ".", and what such a file was made for
_MADE_FOR = {
    r"lq_proj_": "PiD",
    r"patch_blocks_\d+_(norm|mlp|attn_(qkv|proj)|adaLN_modulation)_(x|y|img|txt)": "PixelDiT, text-to-image",
    r"patch_blocks_\d+_(mlp_w|attn_(qkv|proj)|adaLN_modulation_0)": "PixelDiT, class-conditional",
    r"patch_blocks_\d+_attention_": "PixelHDM",
    r"dino_conditioner_|(patch_blocks_\d+|final_layer)_adaLN_modulation_1": "PixelDiT2",
    r"pixel_blocks_\d+_": "another size or variant of PixelDiT",
    r"double_blocks|single_transformer_blocks": "Flux",
    r"joint_blocks": "Stable Diffusion 3",
    r"down_blocks|input_blocks|up_blocks|mid_block": "Stable Diffusion",
    r"transformer_blocks": "another model of diffusers",
    r"lora_te|text_model|text_encoder": "a text encoder",
}


def check_origin(tensors: Iterable[str], metadata: Mapping[str, str], source: str) -> None:
    """Make sure that a file is not of another network's format, nor a whole network with a LoRA in it.

    Raises:
        ValueError: an adapter for editing, a network that PEFT has wrapped, an adapter that no program here can add.
    """
    tensors = list(tensors)
    for key in tensors:
        if kind := next((kind for part, kind in _OTHER_ADAPTERS.items() if part in key), None):
            raise ValueError(
                f"{source} is {kind}, not a LoRA (it has {key[:200]}). It cannot be added here: merge it into its "
                "model with the program that trained it."
            )
    check_editing(tensors, metadata, source)
    if base := next((key for key in tensors if key.endswith(_BASE)), None):
        raise ValueError(
            f"{source} is a whole model with a LoRA in it that is not merged (it has {base[:200]}), not a LoRA file. "
            "Save the LoRA alone where it was trained (in PEFT, save_pretrained), and choose that file."
        )


def check_adapter(tensors: Iterable[str], source: str) -> None:
    """Make sure that a file has no adapter of another kind, which ComfyUI alone can add.

    Raises:
        ValueError: DoRA, LoHa, LoKr, OFT.
    """
    for key in tensors:
        if kind := next((kind for part, kind in _ADAPTERS.items() if part in key), None):
            raise ValueError(
                f"{source} is {kind}, not a plain LoRA (it has {key}). Only plain LoRA can be merged here: load it in "
                "ComfyUI with the node PixelDiT LoRA, or merge it with the program that trained it."
            )


def explain_no_lora(tensors: Mapping[str, Tensor], file: Path, source: str) -> str:
    """The message for a file without any pair of a LoRA."""
    shapes = join_shapes({key: tuple(value.shape) for key, value in tensors.items()})
    if groups := find_groups(shapes):
        return f"{source} is a whole checkpoint ({groups[0].family.title}), not a LoRA. Load it as the model itself."
    if kind := find_refused(shapes):
        return f"{source} is {kind.title}, and no LoRA of PixelDiT. Choose another file."
    if is_state_name(file.stem) or any(key.rpartition(".")[2] in _OPTIMIZER for key in shapes):
        return (
            f"{source} is the state of a training (of its optimizer or the like), not a LoRA. Choose the LoRA's own "
            "file, which usually lies beside it."
        )
    if are_embeddings(shapes, file.stem):
        return _explain_embeddings(shapes, file, source)
    return (
        f"{source} is not a LoRA. It has {shorten_list(sorted(tensors), SHOWN) or 'no tensors'}. Choose another file."
    )


def explain_no_match(modules: Iterable[str], file: Path, source: str) -> str:
    """The message for a LoRA none of whose modules is in the network."""
    modules = sorted(modules)
    start = f"{source}: none of its {len(modules)} modules is in this network: {shorten_list(modules, SHOWN)}. It was"
    flat = " ".join(modules).replace(".", "_")
    made_for = next((title for part, title in _MADE_FOR.items() if re.search(part, flat)), None)
    if is_text_half(modules) or (made_for is None and is_text_name(file.parent.name)):
        return f"{start} made for {_TEXT}, and does not fit PixelDiT itself. Choose {_half_of(file)}."
    return (
        f"{start} made for {made_for or 'another model'}. Choose a LoRA for this model, or the model that it was made "
        "for."
    )


def _explain_embeddings(shapes: Shapes, file: Path, source: str) -> str:
    return (
        f"{source} holds learned embeddings ({shorten_list(sorted(shapes), SHOWN)}), not a LoRA: new words for a text "
        f"encoder, which cannot be added to PixelDiT itself. Choose {_half_of(file)}."
    )


def _half_of(file: Path) -> str:
    """Where the network's half of a training is."""
    if half := other_half(file):
        return f"the transformer's half of that training: {half}"
    return "the transformer's half of that training, usually adapter_model.safetensors in a folder called transformer"
