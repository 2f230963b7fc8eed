"""Encoders of a tiny PixelDiT2 under the names of timm, transformers and Meta, and checkpoints without one."""

import json
import re

import torch
from safetensors.torch import save_file

PLACE = "dino_conditioner.encoder."
PARAMS = {"encoder_num_heads": 2, "in_context_start": 1, "single_silu_cond": False, "noise_scale": 1.0}  # of `tiny`
CONFIG = {
    "model_type": "dinov3_vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16,
    "use_gated_mlp": False, "key_bias": False,
}  # fmt: skip


def timm(model):
    """The encoder of a model, under the network's names."""
    state = model.network.state_dict()
    return {key.removeprefix(PLACE): value.clone() for key, value in state.items() if key.startswith(PLACE)}


def bare(model):
    """All of a model but its encoder."""
    state = model.network.state_dict()
    return {key: value.clone() for key, value in state.items() if not key.startswith(PLACE)}


def transformers(encoder, before_layers=""):
    """The same under transformers' names."""
    named = {}
    for key, value in encoder.items():
        for ours, theirs in (
            (r"^blocks\.", f"{before_layers}layer."), (r"^cls_token$", "embeddings.cls_token"),
            (r"^reg_token$", "embeddings.register_tokens"), (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
            (r"attn\.proj\.", "attention.o_proj."), (r"attn\.([qv])_bias$", r"attention.\1_proj.bias"),
            (r"gamma_([12])$", r"layer_scale\1.lambda1"), (r"fc1", "up_proj"), (r"fc2", "down_proj"),
        ):  # fmt: skip
            key = re.sub(ours, theirs, key)
        if key.endswith("attn.qkv.weight"):
            parts = zip("qkv", value.chunk(3), strict=True)
            named |= {key.replace("attn.qkv", f"attention.{name}_proj"): part.clone() for name, part in parts}
        else:
            named[key] = value
    return named | {"embeddings.mask_token": torch.zeros(1, 1, 16)}


def meta(encoder):
    """The same under Meta's names; the masked part of a bias is what nobody may read."""
    named = {"mask_token": torch.zeros(1, 16), "rope_embed.periods": torch.full((2,), torch.nan)}
    for key, value in encoder.items():
        key = re.sub(r"gamma_([12])$", r"ls\1.gamma", key).replace("reg_token", "storage_tokens")
        if key.endswith("q_bias"):
            rest = encoder[key.replace("q_bias", "v_bias")]
            named[key.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.full((16,), torch.nan), rest])
            named[key.replace("q_bias", "qkv.bias_mask")] = torch.ones(48)
        elif not key.endswith("v_bias"):
            named[key] = value
    return named


def saved(path, tensors, metadata=None, config=None):
    """A file, with a config.json beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    else:
        torch.save(tensors, path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path
