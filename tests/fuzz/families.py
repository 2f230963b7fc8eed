"""Checkpoints of the other families (x-prediction networks, PixelHDM, PixelDiT2) as their trainers write them."""

from __future__ import annotations

import functools
import random
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import pixeldit_core as pc

POOL = 300

KINDS = (
    "xpred_dit",
    "xpred_mmdit",
    "xpred_pixeldit",
    "xpred_mmpixeldit",
    "pixelhdm",
    "pixelhdm",
    "pixeldit2",
    "pixeldit2",
)

ALIASES = pc.FAMILIES["pixelhdm"].aliases


def xpred_params(dice: random.Random, kind: str) -> Any:
    heads, size = dice.choice((1, 2, 4)), dice.choice((2, 4, 8, 32))
    sizes = {"dim": dice.choice((4, 6, 16)), "depth": dice.choice((1, 2)), "heads": heads, "dim_head": size}
    sizes |= {"patch_size": dice.choice((1, 2, 4)), "in_channels": dice.choice((1, 2, 3, 3, 4, 5)), "num_classes": 3}
    sizes |= {"mlp_hidden_dim": dice.choice((1, 16)), "qk_norm": dice.choice(("", "rmsnorm", "layernorm"))}
    sizes |= {"use_abs_pe": dice.random() < 0.7, "image_size": dice.choice((4, 6, 8, 9))}
    sizes |= {"num_registers": dice.choice((1, 2))} if "mm" in kind else {}
    if "pixel" in kind:
        sizes |= {"pixel_dim": dice.choice((1, 4)), "pixel_depth": 1, "compress_ratio": dice.choice((1, 2))}
        sizes |= {"pixel_mlp_hidden_dim": 4}
    return pc.FAMILIES[kind].params(**sizes)


def pixelhdm_params(dice: random.Random) -> Any:
    sizes = {"hidden_dim": 8, "num_heads": 2, "num_kv_heads": dice.choice((1, 2)), "pixel_dim": dice.choice((2, 3))}
    sizes |= {"patch_size": dice.choice((1, 2, 4)), "patch_layers": dice.choice((1, 2)), "pixel_layers": 1}
    sizes |= {"bottleneck_dim": dice.choice((1, 4)), "time_embed_dim": 4, "mrope_text_dim": 4, "mrope_img_h_dim": 0}
    sizes |= {"mrope_img_w_dim": 0, "gate_type": dice.choice(("headwise", "elementwise"))}
    sizes |= {"gate_bias": dice.random() < 0.3, "mlp_ratio": dice.choice((None, 2.0))}
    channels = dice.choice((3, 3, 3, 1, 4))
    return pc.FAMILIES["pixelhdm"].params(**sizes, in_channels=channels, out_channels=channels)


def pixeldit2_params(dice: random.Random) -> Any:
    sizes = {"hidden_size": 8, "num_heads": dice.choice((1, 2)), "depth": dice.choice((1, 2)), "num_classes": 3}
    sizes |= {"patch_size": dice.choice((1, 2, 4)), "in_context_len": dice.choice((0, 2)), "in_context_start": 0}
    sizes |= {"mlp_hidden_size": dice.choice((1, 21, 32)), "encoder_dim": 8, "encoder_depth": 1, "encoder_num_heads": 1}
    sizes |= {"grounding_proj_blocks": dice.choice((0, 1)), "single_silu_cond": dice.random() < 0.5}
    return pc.FAMILIES["pixeldit2"].params(**sizes, noise_scale=dice.choice((1.0, 2.0)))


def weights_of(kind: str, params: Any, dice: random.Random) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(dice.randrange(2**31))
    shapes = pc.build_model(kind, params).network.state_dict()
    return {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in shapes.items()}


def xpred_config(params: Any) -> dict[str, Any]:
    """As the trainer's file has it."""
    mean = [0.5] * params.in_channels
    names = {"pixel_dim": "pit_dim", "pixel_depth": "pit_depth"} | (
        {"dim": "dit_dim", "depth": "dit_depth"} if params.pixel_depth else {}
    )
    sizes = {names.get(key, key): value for key, value in asdict(params).items()}
    model = {key: value for key, value in sizes.items() if not key.startswith(("image", "num_classes", "in_"))}
    model |= {"qk_norm": params.qk_norm or None}
    del model["mlp_hidden_dim"], model["pixel_mlp_hidden_dim"]
    dataset = {"name": "mnist", "image_size": params.image_size, "in_channels": params.in_channels}
    dataset |= {"num_classes": params.num_classes, "normalize_mean": mean, "normalize_std": list(mean)}
    return {"dataset": dataset, "training": {"lr": 1e-4, "epochs": 3}, "model": model}


def pixelhdm_config(params: Any) -> dict[str, Any]:
    sizes = {key: value for key, value in asdict(params).items() if value is not None}
    return sizes | {"model_type": "pixelhdm", "cfg_scale": 7.5, "repa_enabled": True}


def with_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = {key: (alias, name) for key in state for alias, name in ALIASES.items() if name in key}
    return state | {key.replace(name, alias): state[key] for key, (alias, name) in pairs.items()}


def lightning(state: dict[str, Tensor], dice: random.Random) -> dict[str, Any]:
    """As PixelDiT2's trainers write it: an average, or both; with the encoder in it, mostly; of a LoRA training."""
    both = {f"{start}{key}": value for start in ("denoiser.", "ema_denoiser.") for key, value in state.items()}
    if dice.random() < 0.3:
        both = {key: value for key, value in both.items() if key.startswith("ema") or ".encoder." not in key}
    if dice.random() < 0.3:
        for key in [key for key in both if key.endswith(("attn.qkv.weight", "mlp.w1.weight")) and "dino" not in key]:
            layer, weight = key.removesuffix(".weight"), both.pop(key)
            both[f"{layer}.base_layer.weight"] = weight
            both |= {f"{layer}.lora_A": weight[:1].clone(), f"{layer}.lora_B": weight[:, :1].clone()}
    beside = {"diffusion_trainer.proj.0.weight": torch.zeros(2, 2)}
    return {"state_dict": both | beside, "global_step": 7, "optimizer_states": [{"state": {}, "param_groups": []}]}


def trained(kind: str, params: Any, dice: random.Random) -> dict[str, Any]:
    """What a trainer saves, as one dictionary."""
    state = weights_of(kind, params, dice)
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    if kind == "pixeldit2":
        return lightning(state, dice)
    if kind != "pixelhdm":
        stored = {"epoch": 3, "model_state_dict": state, "ema_model_state_dict": dict(state)}
        stored |= {"optimizer_state_dict": optimizer, "model_type": kind, "dataset_name": "mnist", "loss": 0.5}
        return stored | {"config": xpred_config(params)}
    model = with_aliases(state) | {"_dino_encoder.norm.weight": torch.zeros(2), "_dino_projector.0.bias": torch.ones(2)}
    shadow = {"decay": 0.999, "num_updates": 3, "shadow": dict(state)} if dice.random() < 0.7 else dict(state)
    stored = {"model": model, "ema": shadow, "optimizer": optimizer, "config": pixelhdm_config(params)}
    return stored | {"state": {"step": 7, "epoch": 1}, "scheduler": {"last_epoch": 3}, "version": "1.0"}


@functools.cache
def sound(number: int) -> tuple[str, Any, dict[str, Any]]:
    """One of a number of networks: its kind, its sizes, and what its trainer saves."""
    dice = random.Random(number)
    kind = dice.choice(KINDS)
    makers = {"pixelhdm": pixelhdm_params, "pixeldit2": pixeldit2_params}
    params = makers[kind](dice) if kind in makers else xpred_params(dice, kind)
    return kind, params, trained(kind, params, dice)
