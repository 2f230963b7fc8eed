"""Golden cases of the x-prediction networks: sizes and weights, of a file or of the settings in the specification."""

import math
import zlib

import numpy as np
import torch
from helpers import find_golden

from pixeldit_core.families.xpred.network import network_class
from pixeldit_core.families.xpred.params import XPredParams

FILES = (
    "dit-r1",
    "dit-r1-layernorm-noape",
    "dit-r2",
    "mmdit-r1",
    "mmdit-r2",
    "pixeldit-r1",
    "pixeldit-r2",
    "mmpixeldit-r1",
    "mmpixeldit-r2",
)
DATASETS = {"mnist": (28, 1), "cifar10": (32, 3), "imagenet": (256, 3)}
TABLES = ("class_registers", "register_pos_embed", "pos_embedding", "semantic_pos_embedding", "pixel_pos_embedding")
NORMS = ("norm1.weight", "norm2.weight", "norm_final.weight", "q_norm.weight", "k_norm.weight")


def preset_params(preset, dataset="mnist"):
    size, channels = DATASETS[dataset]
    pixel = dict(pixel_dim=16, pixel_depth=2, compress_ratio=4, pixel_mlp_hidden_dim=64, qk_norm="rmsnorm")
    return XPredParams(
        dim=128,
        depth=6,
        in_channels=channels,
        image_size=size,
        patch_size=16 if "legacy" in preset else 4,
        num_registers=4 if "mm" in preset else 0,
        mlp_hidden_dim=512,
        **(pixel if "pixel" in preset else {}),
    )


def case_params(case):
    """Sizes of a case: of a file with a model's configuration, of one without, or of a preset."""
    if "preset" in case:
        return preset_params(case["preset"].replace("/", "-"), case["dataset"])
    told = case.get("model_config") or case["constructor"]
    data, pixels = case["dataset_config"], "Pixel" in case["network"]
    dim, depth = (told["dit_dim"], told["dit_depth"]) if pixels else (told["dim"], told["depth"])
    pixel = {}
    if pixels:
        pixel = dict(pixel_dim=told["pit_dim"], pixel_depth=told["pit_depth"], compress_ratio=told["compress_ratio"])
        pixel["pixel_mlp_hidden_dim"] = int(told["pit_dim"] * told["mlp_ratio"])
    return XPredParams(
        dim=dim,
        depth=depth,
        heads=told["heads"],
        dim_head=told["dim_head"],
        patch_size=told["patch_size"] if "patch_size" in told else told["semantic_patch_size"],
        in_channels=data["in_channels"],
        num_classes=data["num_classes"],
        mlp_hidden_dim=int(dim * told["mlp_ratio"]),
        qk_norm=told.get("qk_norm") or "",
        num_registers=told["num_registers"] if "MM" in case["network"] else 0,
        use_abs_pe=told.get("use_abs_pe", True),
        image_size=data["image_size"],
        image_mean=tuple(data["normalize_mean"]),
        image_std=tuple(data["normalize_std"]),
        **pixel,
    )


def find(name):
    """A golden case."""
    return find_golden(name, "xpred")


def settings_value(key, shape, tag="preset-ema/"):
    """A tensor of the golden data's synthetic weights (spec: xpred, section 9)."""
    a = np.random.RandomState(zlib.crc32((tag + key).encode())).standard_normal(shape).astype(np.float32)
    if key in TABLES or key == "class_embed.weight":
        return torch.from_numpy(np.float32(0.5) * a)
    if key.endswith(NORMS):
        return torch.from_numpy(1 + np.float32(0.1) * a)
    if len(shape) == 1:
        return torch.from_numpy(np.float32(0.2) * a)
    fan = shape[0] if key.endswith("attn.expand.proj.weight") else math.prod(shape[1:])
    return torch.from_numpy(np.float32(1 / math.sqrt(fan)) * a)


def weights_of(found, kind="ema"):
    """Tensors of a case's file, or of its settings."""
    if "preset" in found.case:
        with torch.device("meta"):
            shapes = network_class(case_params(found.case))(case_params(found.case)).state_dict()
        return {key: settings_value(key, tuple(value.shape)) for key, value in shapes.items()}
    stored = torch.load(found.checkpoint, weights_only=True)
    ema = stored.get("ema_model_state_dict") if kind == "ema" else None
    return stored["model_state_dict"] if ema is None else ema
