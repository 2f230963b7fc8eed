"""PixelDiT2's golden cases: params and weights of a file, and a tiny model."""

import torch
from helpers import find_golden, randn
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.layers.mlp import swiglu_size

FORWARDS = (
    "forward_p16_32x32",
    "forward_p4_12x8_single",
    "forward_p4_8x12",
    "forward_p8_16x24_start0",
    "forward_p8_24x16_nocontext",
)
TINY = pc.PixelDiT2Params(
    hidden_size=16,
    num_heads=2,
    depth=3,
    patch_size=4,
    num_classes=5,
    in_context_len=3,
    in_context_start=1,
    mlp_hidden_size=42,
    encoder_dim=16,
    encoder_depth=2,
    encoder_num_heads=2,
    grounding_proj_heads=2,
)


def find(name):
    """A golden case."""
    return find_golden(name, "pixeldit2")


def case_params(case, noise_scale=1.0):
    """Params of a case's configuration; those of a conditioner have a network of one block around it."""
    config, encoder = case["config"], case["encoder_config"]
    width, heads = config["hidden_size"], config.get("num_heads", config["grounding_proj_heads"])
    return pc.PixelDiT2Params(
        hidden_size=width,
        num_heads=heads,
        depth=config.get("depth", 1),
        patch_size=config["patch_size"],
        num_classes=config.get("num_classes", 1),
        in_context_len=config.get("in_context_len", 0),
        in_context_start=config.get("in_context_start", 0),
        mlp_hidden_size=swiglu_size(width, multiple=config.get("mlp_hidden_multiple", 0)),
        encoder_dim=encoder["embed_dim"],
        encoder_depth=encoder["depth"],
        encoder_num_heads=encoder["num_heads"],
        grounding_proj_blocks=config["grounding_proj_blocks"],
        grounding_proj_heads=config["grounding_proj_heads"] or heads,
        single_silu_cond=config.get("single_silu_cond", False),
        noise_scale=noise_scale,
    )


def load(case, dtype=torch.float32, **others):
    """The model of a case, its encoder inside of the file."""
    model = pc.build_model("pixeldit2", case_params(case.case, **others), device="cpu", dtype=dtype)
    model.network.load_state_dict({key: value.to(dtype) for key, value in load_file(case.checkpoint).items()})
    return model


def tiny(params=TINY, dtype=torch.float32, **factory_kwargs):
    """A model with random weights."""
    model = pc.build_model("pixeldit2", params, device="cpu", dtype=dtype, **factory_kwargs)
    for seed, (name, parameter) in enumerate(model.network.named_parameters()):
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(around + 0.15 * randn(*parameter.shape, seed=seed))
    return model


def count_rows(model):
    """What the network and its encoder are called with: lists of numbers of rows, filled by hooks."""
    network, seen = model.network, {"network": [], "encoder": []}
    network.register_forward_pre_hook(lambda _, arguments: seen["network"].append(len(arguments[0])))
    network.dino_conditioner.encoder.register_forward_pre_hook(
        lambda _, arguments: seen["encoder"].append(len(arguments[0]))
    )
    return seen
