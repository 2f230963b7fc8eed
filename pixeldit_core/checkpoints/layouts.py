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

# Modules of a training beside the network's own, in one state dict: what its output is judged by.
LOSSES = frozenset(
    "critic discriminator disc netD D teacher lpips lpips_loss loss_fn perceptual_loss perceptual loss criterion "
    "dino dinov2 dino_encoder repa_encoder fid inception".split()
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
_PACKED = "Such weights are not supported. Get the bf16 file and choose fp8_e4m3fn in the loader."
_ADD = "Load the model it was made for, then add it with PixelDiT LoRA."
_MERGE = "Where it was trained, merge the LoRA and save again; or save the LoRA alone, and load it with PixelDiT LoRA."
_GATHER = "Where it was trained, gather the full state dict and save that. Getting this file again does not help."
_NO_VAE = "PixelDiT needs none: it generates pixels. Choose a PixelDiT checkpoint."
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
    *(
        Kind("a mixture of experts, another network than PixelDiT", (part,), _OTHER, True)
        for part in (".experts.", ".expert.", ".expert_0.", ".expert0.", ".shared_experts.", ".shared_expert.")
    ),
    Kind(
        "the state of a training whose LoRA was not merged into the weights (its names have base_layer)",
        (".base_layer.",),
        "Where it was trained, call merge_and_unload() and save again; or save the LoRA alone, and load it with "
        "PixelDiT LoRA.",
        True,
    ),
    Kind("quantized by bitsandbytes (4 bits, NF4)", (".quant_state.bitsandbytes__nf4",), _PACKED, True),
    Kind("quantized by bitsandbytes (4 bits, FP4)", (".quant_state.bitsandbytes__fp4",), _PACKED, True),
    Kind("quantized by bitsandbytes (8 bits)", (".SCB",), _PACKED, True),
    Kind("quantized by bitsandbytes", (".absmax", ".quant_map"), _PACKED, True),
    Kind("packed by SVDQuant (Nunchaku)", (".qweight", ".wscales"), _PACKED, True),
    Kind("packed by GPTQ or AWQ", (".qweight", ".scales"), _PACKED, True),
    Kind("quantized by Quanto", ("._data", "._scale"), _PACKED, True),
    Kind("quantized by torchao", ("._weight_qdata",), _PACKED, True),
    Kind("quantized by torchao", (".weight:qdata",), _PACKED, True),
    Kind("quantized by torchao", (".weight_qdata",), _PACKED, True),
    Kind("quantized by HQQ", (".W_q",), _PACKED, True),
    Kind("quantized by torch itself", ("._packed_params.dtype",), _PACKED, True),
    Kind("quantized by torch itself", (".zero_point",), _PACKED, True),
    Kind("prepared for quantization by ModelOpt", (".weight_quantizer._amax",), _PACKED, True),
    Kind("quantized in blocks of a matrix (fp8 with scale_inv)", (".weight_scale_inv",), _PACKED, True),
    Kind("packed by compressed-tensors", (".weight_packed", ".weight_scale"), _PACKED, True),
    Kind("a LoRA, not a whole model", ("lora_A.weight",), _ADD),
    Kind("a LoRA, not a whole model", ("lora_down.weight",), _ADD),
    Kind("a LoRA of PixelDiT2", (".lora_A",), "PixelDiT2 is another network; its files do not fit here."),
    *(
        Kind("the state of a training whose LoRA was not merged into the weights", (part,), _MERGE, True)
        for part in (
            ".lora_A.",
            ".lora_A",
            ".lora_down.",
            ".lora_a.",
            ".lora_magnitude_vector.",
            ".hada_w1_a",
            ".hada_w1_a.",
            ".lokr_w1",
            ".lokr_w1.",
            ".oft_R.",
            ".vera_lambda_b.",
        )
    ),
    Kind("the state of a training that PEFT has wrapped", (".modules_to_save.",), _MERGE, True),
    Kind(
        "the state of a network whose weights were kept in parts (parametrizations, such as weight normalization)",
        (".parametrizations.",),
        "Where it was trained, call torch.nn.utils.parametrize.remove_parametrizations and save again.",
        True,
    ),
    *(
        Kind("of a training with FSDP, whose weights were joined into flat ones", (part,), _GATHER, True)
        for part in ("_flat_param", "flat_param", "flat_param_0")
    ),
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


def is_loss(key: str, prefix: str) -> bool:
    """Whether a tensor belongs to a module beside a network of this prefix that judges its output, such as a critic."""
    place = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return not key.startswith(prefix) and key.startswith(place) and key[len(place) :].partition(".")[0] in LOSSES


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
    text = "".join(f".{key}\n" for key in keys)  # one search in it for each part, however many tensors there are
    for kind in REFUSED:
        if kind.is_variant >= variants_only and all(_pattern(part) in text for part in kind.keys):
            return kind
    return None


def _pattern(part: str) -> str:
    """A piece of names, or the end of one."""
    return part if part.endswith(".") else f".{part.removeprefix('.')}\n"


def is_ignored(key: str) -> bool:
    """Whether a key is on the ignore list, as it is or after any of `PREFIXES`."""
    rests = {key}
    while rests:  # a set: there may be many ways to take a prefix apart, with few results
        if any(_is_entry(rest) for rest in rests):
            return True
        rests = {rest for rest in rests if rest.startswith(PREFIXES)}
        rests = {rest[len(piece) :] for rest in rests for piece in PREFIXES if rest.startswith(piece)}
    return False


def _is_entry(key: str) -> bool:
    return key in _IGNORED_NAMES or key.startswith(_IGNORED_MODULES)


_IGNORED_NAMES = frozenset(entry for entry in IGNORED if not entry.endswith("."))
_IGNORED_MODULES = tuple(entry for entry in IGNORED if entry.endswith("."))
