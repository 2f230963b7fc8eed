"""Small models with random weights."""

from dataclasses import replace

import torch

import pixeldit_core as pc

TINY = pc.PixelDiTParams(
    hidden_size=24,
    num_groups=2,
    patch_depth=2,
    pixel_depth=1,
    patch_size=4,
    pixel_hidden_size=4,
    num_classes=12,
    mlp_hidden_size=64,  # what shapes give, so that params are equal after loading
    pixel_attn_hidden_size=24,
    pixel_num_groups=2,
)
TINY_T2I = pc.PixelDiTT2IParams(
    hidden_size=24,
    num_groups=2,
    patch_depth=2,
    pixel_depth=2,
    pixel_attn_hidden_size=16,
    pixel_num_groups=2,
    patch_size=4,
    pixel_hidden_size=4,
    txt_embed_dim=12,
    txt_max_length=6,
    mlp_hidden_size=64,
)
NAMES = (
    ("circle", "disc"),
    ("square",),
    ("tabby", "tabby cat"),
    ("star",),
    ("crane", "bird"),
    ("crane", "machine"),
    *((f"thing {number}",) for number in range(6, 12)),
)


def fill(network, seed=0, scale=0.1):
    """Weights that make every part of a network matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        around = 1.0 if "norm" in name else 0.0
        parameter.data.copy_(around + scale * torch.randn(parameter.shape, generator=generator))


def tiny_model(params=TINY, seed=0, dtype=torch.float32, **factory_kwargs):
    """A class-conditional model with names for its twelve classes and with settings."""
    model = pc.build_model("pixeldit", params, device="cpu", dtype=dtype, **factory_kwargs)
    fill(model.network, seed)
    settings = pc.SamplingSettings(steps=4, cfg=2.0, cfg_interval=(0.1, 0.9), size=(16, 16))
    model.spec = replace(model.spec, class_names=NAMES[: params.num_classes], settings=settings)
    return model


def tiny_t2i_model(params=TINY_T2I, seed=0, dtype=torch.float32, **factory_kwargs):
    """A text-to-image model with settings."""
    model = pc.build_model("pixeldit_t2i", params, device="cpu", dtype=dtype, **factory_kwargs)
    fill(model.network, seed, 0.2)  # the text reaches the image through many gates
    settings = pc.SamplingSettings(steps=4, cfg=2.0, timeshift=3.0, solver="flow_dpmpp_2m", size=(16, 16))
    model.spec = replace(model.spec, settings=settings)
    return model
