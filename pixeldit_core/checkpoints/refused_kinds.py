"""Kinds of files that are detected by the names of their tensors, in order to be refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
_MERGE = "Where it was trained, merge the LoRA and save again; or save the LoRA alone, and load it with PixelDiT LoRA."
_GATHER = "Where it was trained, gather the full state dict and save that. Getting this file again does not help."
_ENCODER = "Choose the checkpoint of PixelDiT2, and this file as its encoder."
_EDITING = "No weights of this kind are published, and it is not supported. Choose a checkpoint of PixelDiT2."
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
    ("quantized by torchao", (".weight_qdata",)),
    ("quantized by SDNQ", (".svd_up", ".svd_down")),
    ("quantized by SDNQ", (".scale", ".zero_point")),
    ("float8 with a scale for each block of a matrix (as of DeepSeek)", (".weight_scale_inv",)),
    ("quantized by torch itself", ("._packed_params.dtype",)),
    ("quantized by torch itself", (".zero_point",)),
    ("prepared for quantization by ModelOpt", (".weight_quantizer._amax",)),
)
REFUSED: tuple[Kind, ...] = (
    Kind(
        "PiD, a pixel diffusion decoder and upscaler, not a PixelDiT",
        ("lq_proj.latent_proj.0.weight",),
        "Use ComfyUI's own PiD nodes for it (Load Diffusion Model, PiD Conditioning).",
    ),
    *(
        Kind("an adapter for editing of PixelDiT2 (pixeldit2-edit-adapter-v1)", (part,), _EDITING)
        for part in ("source_final_gate", "source_gates", ".source_dino_proj.")
    ),
    *(
        Kind("a PixelDiT2 with an adapter for editing in it", (part,), _EDITING, True)
        for part in ("source_final_gate", "source_gates", ".source_dino_proj.")
    ),
    Kind("a LoRA of PixelDiT2", ("dino_conditioner.dino_proj.output_proj.lora_A",), _ADD),
    *(
        Kind("a part of a PixelDiT2", keys, _PART)
        for keys in (
            ("in_context_posemb",),
            ("dino_proj.input_proj.weight",),
            ("s_embedder.proj.weight", "patch_blocks.0.adaLN_modulation.1.weight"),
            ("s_embedder.proj.weight", "final_layer.adaLN_modulation.1.weight"),
        )
    ),
    *(
        Kind("a DINOv3 ViT, an encoder that PixelDiT2 looks through, and no model by itself", keys, _ENCODER)
        for keys in (
            ("reg_token", "blocks.0.gamma_1"),
            ("storage_tokens",),
            ("embeddings.register_tokens", "layer.0.layer_scale1.lambda1"),
        )
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
    Kind("a LoRA, not a whole model", ("lora_A.weight",), _ADD),
    Kind("a LoRA, not a whole model", ("lora_down.weight",), _ADD),
    Kind("a LoRA of PixelDiT2", (".lora_A",), _ADD),
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
)


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
