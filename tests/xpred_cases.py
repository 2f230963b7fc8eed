"""The x-prediction networks: golden cases (params and weights of a file or of the specification), and tiny ones."""

import dataclasses
import math
import zlib

import numpy as np
import pytest
import torch
from helpers import find_golden, randn

import pixeldit_core as pc
from pixeldit_core.families.xpred.network import (
    XPredDiT,
    XPredMMDiT,
    XPredMMPixelDiT,
    XPredPixelDiT,
    network_class,
)
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

CLASSES = {"DiT": XPredDiT, "MMDiT": XPredMMDiT, "PixelDiT": XPredPixelDiT, "MMPixelDiT": XPredMMPixelDiT}
TINY = XPredParams(dim=12, depth=2, heads=2, dim_head=6, num_classes=3, mlp_hidden_dim=20, image_size=12)
TINY_MM = dataclasses.replace(TINY, num_registers=3, qk_norm="layernorm")
TINY_PIXEL = dataclasses.replace(
    TINY,
    pixel_dim=4,
    pixel_depth=2,
    compress_ratio=2,
    pixel_mlp_hidden_dim=10,
    qk_norm="rmsnorm",
)
TINY_MM_PIXEL = dataclasses.replace(TINY_PIXEL, num_registers=3)
KINDS = (TINY, TINY_MM, TINY_PIXEL, TINY_MM_PIXEL)
each_network = pytest.mark.parametrize("params", KINDS, ids=lambda params: network_class(params).__name__)


def preset_params(preset, dataset="mnist"):
    size, channels = DATASETS[dataset]
    pixel = {
        "pixel_dim": 16,
        "pixel_depth": 2,
        "compress_ratio": 4,
        "pixel_mlp_hidden_dim": 64,
        "qk_norm": "rmsnorm",
    }
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
    config = case.get("model_config") or case["constructor"]
    data, pixels = case["dataset_config"], "Pixel" in case["network"]
    dim, depth = (config["dit_dim"], config["dit_depth"]) if pixels else (config["dim"], config["depth"])
    pixel = {}
    if pixels:
        pixel = {
            "pixel_dim": config["pit_dim"],
            "pixel_depth": config["pit_depth"],
            "compress_ratio": config["compress_ratio"],
            "pixel_mlp_hidden_dim": int(config["pit_dim"] * config["mlp_ratio"]),
        }
    return XPredParams(
        dim=dim,
        depth=depth,
        heads=config["heads"],
        dim_head=config["dim_head"],
        patch_size=config["patch_size"] if "patch_size" in config else config["semantic_patch_size"],
        in_channels=data["in_channels"],
        num_classes=data["num_classes"],
        mlp_hidden_dim=int(dim * config["mlp_ratio"]),
        qk_norm=config.get("qk_norm") or "",
        num_registers=config["num_registers"] if "MM" in case["network"] else 0,
        use_abs_pe=config.get("use_abs_pe", True),
        image_size=data["image_size"],
        image_mean=tuple(data["normalize_mean"]),
        image_std=tuple(data["normalize_std"]),
        **pixel,
    )


def find(name):
    """A golden case."""
    return find_golden(name, "xpred")


def synthetic_weight(key, shape, tag="preset-ema/"):
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


def weights_of(case, kind="ema"):
    """Tensors of a case's file, or those of the specification."""
    if "preset" in case.case:
        with torch.device("meta"):
            shapes = network_class(case_params(case.case))(case_params(case.case)).state_dict()
        return {key: synthetic_weight(key, tuple(value.shape)) for key, value in shapes.items()}
    stored = torch.load(case.checkpoint, weights_only=True)
    ema = stored.get("ema_model_state_dict") if kind == "ema" else None
    return stored["model_state_dict"] if ema is None else ema


def load(case, kind="ema", **factory_kwargs):
    network = CLASSES[case.case["network"]](case_params(case.case), **factory_kwargs)
    network.load_state_dict(weights_of(case, kind))
    return network.eval().requires_grad_(False)


def tiny(params, **factory_kwargs):
    network = network_class(params)(params, **factory_kwargs).eval().requires_grad_(False)
    for seed, (name, parameter) in enumerate(network.named_parameters()):
        parameter.copy_((1.0 if "norm" in name else 0.0) + 0.3 * randn(*parameter.shape, seed=seed))
    return network


def family_of(params):
    network = network_class(params)
    return next(family for family in pc.FAMILIES.values() if family.network is network)
