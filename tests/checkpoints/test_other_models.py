"""Files of other models are refused by name."""

import pytest
import torch
from checkpoints.files import fails
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.refused_kinds import REFUSED


def file_of(path, *keys):
    save_file({key: torch.zeros(2, 2) for key in keys}, path)
    return path


@pytest.mark.parametrize("keys, reason", [
    (["core.pixel_embedder.proj.weight", "core.lq_proj.latent_proj.0.weight", "core.y_pos_embedding"], "is PiD"),
    (["ema_denoiser.in_context_posemb", "ema_denoiser.s_embedder.proj.weight"], "is a part of a PixelDiT2"),
    (["s_embedder.proj.weight", "patch_blocks.0.adaLN_modulation.1.weight"], "is a part of a PixelDiT2"),
    (["s_embedder.proj.weight", "final_layer.adaLN_modulation.1.weight"], "is a part of a PixelDiT2"),
    (["dino_conditioner.dino_proj.input_proj.weight"], "is a part of a PixelDiT2"),
    (["time_mlp.1.weight", "to_patch_embedding.0.weight"], "is a part of an x-prediction PixelDiT"),
    (["module.time_mlp.1.weight", "module.to_semantic_patch.0.weight"], "is a part of an x-prediction PixelDiT"),
    (["patch_blocks.0.attention.qkv_proj.q_proj.weight", "pixel_blocks.0.compaction.compress.weight"],
     "is a part of a PixelHDM"),
    (["pixel_embedder.proj.weight", "y_pos_embedding", "patch_blocks.0.attn.qkv_x.weight",
      "lq_proj.latent_proj.0.weight"],
     "is PiD"),
    (["diffusion_model.patch_blocks.0.attn.qkv.lora_up.weight",
      "diffusion_model.patch_blocks.0.attn.qkv.lora_down.weight"],
     "is a LoRA"),
    (["base_model.model.patch_blocks.0.attn.qkv.lora_A.weight"], "is a LoRA"),
    (["patch_blocks.0.attn.qkv.lora_A", "patch_blocks.0.attn.qkv.lora_B"], "is a LoRA of PixelDiT2"),
    (["ema_denoiser.in_context_posemb", "ema_denoiser.patch_blocks.0.attn.qkv.base_layer.weight",
      "ema_denoiser.patch_blocks.0.attn.qkv.lora_A"], "is a part of a PixelDiT2"),  # a training of its LoRA
    (["transformer.in_context_posemb", "transformer.dino_conditioner.encoder.layer.0.norm1.weight"],
     "is a part of a PixelDiT2"),
    (["reg_token", "blocks.0.gamma_1", "norm.weight"], "is a DINOv3 ViT, an encoder"),
    (["storage_tokens", "blocks.0.ls1.gamma"], "is a DINOv3 ViT, an encoder"),
    (["embeddings.register_tokens", "layer.0.layer_scale1.lambda1"], "is a DINOv3 ViT, an encoder"),
    (["source_gates", "source_final_gate", "source_dino_proj.input_proj.weight"], "is an adapter for editing"),
    (["patch_blocks.0.attn.qkv.lora_A", "source_gates"], "is an adapter for editing"),
    (["ip_proj.weight", "ip_k.0.weight", "ip_v.0.weight", "ip_scale"], "is an image-prompt adapter"),
    (["model.embed_tokens.weight"], "is a text encoder"),
    (["decoder.conv_in.weight", "encoder.conv_in.weight"], "is a VAE"),
    (["model.diffusion_model.input_blocks.0.0.weight"], "is a Stable Diffusion model"),
    (["double_blocks.0.img_attn.qkv.weight"], "is a Flux model"),
    (["x_embedder.proj.weight", "blocks.0.attn.qkv.weight"], "is a DiT or SiT"),
])  # fmt: skip
def test_other_models_are_refused_by_name(tmp_path, keys, reason):
    path = file_of(tmp_path / "other.safetensors", *keys)
    fails(path, reason)
    info = pc.inspect_checkpoint(path)
    assert info.family is None and reason.removeprefix("is ") in info.title


def test_every_refusal_gives_advice(tmp_path):
    for kind in REFUSED:
        path = file_of(tmp_path / "other.safetensors", *(key.lstrip(".") for key in kind.keys))
        if all(not key.startswith(".") for key in kind.keys):
            fails(path)
        assert kind.advice.endswith(".") and len(kind.advice) > 20


def test_unknown_tensors_are_shown(tmp_path):
    path = file_of(tmp_path / "odd.safetensors", *(f"layer{number}.weight" for number in range(9)))
    fails(path, "is not a PixelDiT checkpoint", "layer0.weight, layer1.weight", "and 4 more", "hoose")


@pytest.mark.parametrize("prefix", ["", "core.", "net.", "model.diffusion_model."])
@pytest.mark.parametrize("name, writer", [("comfy-pid-v1", ""), ("comfy-pid-v1_5", "net.")])
def test_pid_is_refused_by_name(golden, tmp_path, name, writer, prefix):
    """It has every tensor of the text-to-image network, and more."""
    stored = load_file(golden(name, "peers").folder / "checkpoint.safetensors")
    path = tmp_path / "pid.safetensors"
    save_file({prefix + key.removeprefix(writer): value for key, value in stored.items()}, path)
    fails(path, "is PiD, a pixel diffusion decoder and upscaler, not a PixelDiT", "ComfyUI's own PiD nodes")
    assert pc.inspect_checkpoint(path).title.startswith("PiD")


@pytest.mark.parametrize("name", ["comfy-pid-v1", "comfy-pid-v1_5"])
def test_pid_as_it_comes_is_refused_by_name(golden, name):
    fails(golden(name, "peers").folder / "checkpoint.safetensors", "is PiD", "ComfyUI's own PiD nodes")


@pytest.mark.parametrize("file", ["lora_peft/adapter_model", "lora_diffusers/pytorch_lora_weights"])
def test_a_lora_of_another_program_is_refused_by_name(golden, file):
    fails(golden("madtune-t2i", "peers").folder / f"{file}.safetensors", "is a LoRA", "then add it with PixelDiT LoRA")
