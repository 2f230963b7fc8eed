"""Layouts of files, as tables: prefixes of a network's keys, what to ignore, what to write, what to refuse by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..families import FAMILIES, Family
from .weight_sets import Group

# What writers put before a network's own keys, in any number and order.
PREFIXES: tuple[str, ...] = (
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "core.",
    "denoiser.",
    "model_state_dict.",
    "shadow.",
    "ema_denoiser.",
    "net_ema.",
    "ema.",
    "model_ema.",
    "state_dict_ema.",
    "ema_model_state_dict.",
)

# Expected beside a network and ignored: trainers' own modules, and the other models in a ComfyUI checkpoint.
IGNORED: tuple[str, ...] = (
    "diffusion_trainer.",
    "_repa_projector.",
    "_dino_encoder.",
    "_dino_projector.",
    "pos_embed",
    "base_model.pos_embed",
    "model.pos_embed",
    "y_embedder.y_embedding",
    "text_encoders.",
    "conditioner.",
    "vae.",
    "first_stage_model.",
    "model_sampling.",
)

# Counters and markers that trainers keep among the weights, of at most one element, beside a network or a container.
COUNTERS: tuple[str, ...] = (
    "step",
    "steps",
    "global_step",
    "epoch",
    "iter",
    "iteration",
    "n_averaged",
    "num_updates",
    "num_batches_tracked",
    "initted",
    "decay",
)
_MARKER = re.compile(r"__\w+__")  # such as __x0__: what a network predicts

# Ends of names of what modules keep for themselves: TransformerEngine's state, ComfyUI's settings of attention.
OWN_STATES: tuple[str, ...] = ("._extra_state", ".comfy_attention.config")


@dataclass(frozen=True)
class Layout:
    """A way to write a network: what goes before its names, and whether pixel blocks are split as ComfyUI does."""

    prefix: str = ""
    split: bool = False


# What we write, by layout and family. "comfyui" is that of ComfyUI's own loaders or save nodes.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "canonical": dict.fromkeys(FAMILIES, Layout()),
    "comfyui": {
        **dict.fromkeys(FAMILIES, Layout("model.diffusion_model.")),  # as ModelSave does: ComfyUI has no loader for it
        "pixeldit_t2i": Layout("core.", split=True),  # as Load Diffusion Model takes it
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of file that is detected in order to be refused: all of `keys` are (ends of) names in it.

    A key between dots is a piece of names. A variant has all names that a network of ours has, and others.
    """

    title: str
    keys: tuple[str, ...]
    advice: str
    is_variant: bool = False


_PART = "Tensors that every such network has are missing: get the file again."
_OTHER = "The file is sound, but this pack has no such network. Choose a PixelDiT checkpoint."
_ADD = "Load the model it was made for, then add it with PixelDiT LoRA."
_NO_VAE = "PixelDiT needs none: it generates pixels. Choose a PixelDiT checkpoint."
_UNPACKED = "Such weights are not supported. Get the bf16 file and choose fp8_e4m3fn in the loader."
# What the tensors beside a weight show of the program that packed it; the first counts.
_PACKED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("quantized by bitsandbytes (4 bits, NF4)", (".quant_state.bitsandbytes__nf4",)),
    ("quantized by bitsandbytes (4 bits, FP4)", (".quant_state.bitsandbytes__fp4",)),
    ("quantized by bitsandbytes (8 bits)", (".SCB",)),
    ("quantized by bitsandbytes", (".absmax", ".quant_map")),
    ("packed by SVDQuant (Nunchaku)", (".wscales",)),
    ("packed by SVDQuant (Nunchaku)", (".smooth_factor",)),
    ("packed by SVDQuant (Nunchaku)", (".qweight", ".lora_down")),
    ("packed by GPTQ or AWQ", (".qweight", ".scales")),
    ("packed by GPTQ or AWQ", (".qweight", ".qzeros")),
    ("packed by EETQ", (".qweight", ".weight_scales")),
    ("packed by a quantizer (its names have qweight)", (".qweight",)),
    ("quantized by Quanto", ("._data", "._scale")),
    ("packed by compressed-tensors", (".weight_packed",)),
    ("quantized by compressed-tensors (with zero points)", (".weight_zero_point",)),
    ("quantized by torchao", ("._weight_qdata",)),
    ("quantized by torchao", (".weight:qdata",)),
    ("quantized by torchao", (".weight:int_data",)),
    ("packed by HQQ", (".W_q",)),
    ("quantized by SDNQ", (".svd_up", ".svd_down")),
    ("quantized by SDNQ", (".scale", ".zero_point")),
    ("float8 with a scale for each block of a matrix (as of DeepSeek)", (".weight_scale_inv",)),
)
REFUSED: tuple[Kind, ...] = (
    Kind(
        "PiD, a pixel diffusion decoder and upscaler, not a PixelDiT",
        ("lq_proj.latent_proj.0.weight",),
        "Use ComfyUI's own PiD nodes for it (Load Diffusion Model, PiD Conditioning).",
    ),
    Kind(
        "PixelDiT2, another network of that name",
        ("in_context_posemb",),
        "Only the first PixelDiT loads here.",
    ),
    Kind(
        "PixelDiT2, another network of that name",
        ("dino_proj.input_proj.weight",),
        "Only the first PixelDiT loads here.",
    ),
    Kind(
        "PixelDiT2, another network of that name",
        ("s_embedder.proj.weight", "patch_blocks.0.adaLN_modulation.1.weight"),
        "Only the first PixelDiT loads here.",
    ),
    Kind(
        "PixelDiT2, another network of that name",
        ("s_embedder.proj.weight", "final_layer.adaLN_modulation.1.weight"),
        "Only the first PixelDiT loads here.",
    ),
    Kind(
        "a mixture of experts (as of PixelDiT-ProMoE), another network than PixelDiT",
        (".routed_experts.",),
        _OTHER,
        True,
    ),
    Kind("a mixture of experts, another network than PixelDiT", (".experts.",), _OTHER, True),
    Kind(
        "the state of a training whose LoRA was not merged into the weights (its names have base_layer)",
        (".base_layer.",),
        "Where it was trained, call merge_and_unload() and save again; or save the LoRA alone, and load it with "
        "PixelDiT LoRA.",
        True,
    ),
    Kind("a LoRA, not a whole model", ("lora_A.weight",), _ADD),
    Kind("a LoRA, not a whole model", ("lora_down.weight",), _ADD),
    Kind("a LoRA of PixelDiT2", (".lora_A",), "PixelDiT2 is another network; its files do not fit here."),
    Kind("a part of an x-prediction PixelDiT", ("time_mlp.1.weight", "to_patch_embedding.0.weight"), _PART),
    Kind("a part of an x-prediction PixelDiT", ("time_mlp.1.weight", "to_semantic_patch.0.weight"), _PART),
    Kind("a part of a PixelHDM", ("pixel_blocks.0.compaction.compress.weight",), _PART),
    Kind(
        "a text encoder",
        ("embed_tokens.weight",),
        "Put it into models/text_encoders and load it with Load CLIP.",
    ),
    Kind("a text encoder", ("text_model.embeddings.token_embedding.weight",), "Load it with Load CLIP."),
    Kind("a VAE", ("decoder.conv_in.weight",), _NO_VAE),
    Kind(
        "a VAE",
        ("decoder.conv1.weight", "encoder.conv1.weight"),
        _NO_VAE,
    ),
    Kind("a ControlNet", ("input_hint_block.0.weight",), "Choose a PixelDiT checkpoint."),
    Kind(
        "a ControlNet or adapter of PixelDiT",
        ("controlnet_blocks.0.after_proj.weight",),
        "Choose a PixelDiT checkpoint.",
    ),
    Kind("an image-prompt adapter of PixelDiT", ("ip_k.0.weight",), "Choose a PixelDiT checkpoint."),
    Kind("a Stable Diffusion model", ("input_blocks.0.0.weight",), "Load it with ComfyUI's own loaders."),
    Kind(
        "a Stable Diffusion model",
        ("down_blocks.0.resnets.0.conv1.weight",),
        "Load it with ComfyUI's own loaders.",
    ),
    Kind("a Flux model", ("double_blocks.0.img_attn.qkv.weight",), "Load it with Load Diffusion Model."),
    Kind(
        "a DiT or SiT in latent space",
        ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight"),
        "Choose a PixelDiT checkpoint.",
    ),
    *(Kind(title, keys, _UNPACKED, True) for title, keys in _PACKED),
)


def is_counter(key: str, shape: Sequence[int], prefixes: Iterable[str]) -> bool:
    """Whether a tensor is a counter, a marker or a module's own state, and no weight.

    Args:
        prefixes: of the networks in the file; a counter is beside one, or beside a container of one.
    """
    if key.endswith(OWN_STATES):
        return True
    place, _, last = f".{key}".rpartition(".")
    if (last not in COUNTERS and not _MARKER.fullmatch(last)) or math.prod(shape) > 1:
        return False
    return any(f".{prefix}".startswith(f"{place}.") for prefix in prefixes)


def find_stored(keys: Iterable[str], group: Group) -> dict[str, str]:
    """A file's names of a network's tensors, by canonical name; without those on the ignore list.

    Of two names for one tensor the alias counts, as where both are loaded one after the other.
    """
    stored: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: _is_alias(key, group.family)):
        if key.startswith(group.prefix) and not is_ignored(key[len(group.prefix) :]):
            stored[canonical(key[len(group.prefix) :], group.family)] = key
    return stored


def canonical(key: str, family: Family) -> str:
    """The canonical name of a tensor, whichever name it has."""
    for alias, name in family.aliases.items():
        if alias in key:
            return key.replace(alias, name)
    return key


def other_names(key: str) -> list[str]:
    """Other names that files of any family have for a tensor."""
    pairs = (pair for family in FAMILIES.values() for pair in family.aliases.items())
    return [key.replace(name, alias) for alias, name in pairs if name in key]


def _is_alias(key: str, family: Family) -> bool:
    return any(alias in key for alias in family.aliases)


def find_refused(keys: Iterable[str], variants_only: bool = False) -> Kind | None:
    """The kind of a file that is to be refused; None = unknown."""
    text = "".join(f".{key}\n" for key in keys)  # searched as a whole, which is fast
    for kind in REFUSED:
        if kind.is_variant >= variants_only and all(_has(text, part) for part in kind.keys):
            return kind
    return None


def _has(text: str, part: str) -> bool:
    part = part if part.startswith(".") else f".{part}"
    return (part if part.endswith(".") else f"{part}\n") in text


def is_ignored(key: str) -> bool:
    """Whether a key is on the ignore list, as it is or after any of `PREFIXES`."""
    rests = {key}
    while rests:  # a set: there may be many ways to take a prefix apart, with few results
        if any(_is_entry(rest) for rest in rests):
            return True
        rests = {rest[len(piece) :] for rest in rests for piece in PREFIXES if rest.startswith(piece)}
    return False


def _is_entry(key: str) -> bool:
    return any(key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in IGNORED)
