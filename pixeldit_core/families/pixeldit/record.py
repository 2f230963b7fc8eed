"""The official families: class-conditional and text-to-image PixelDiT, and their published configurations."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...flow.path import FlowPath
from ...flow.times import linear_grid, sigma_grid
from ...settings import SETTINGS, SamplingSettings
from ...sizes import Size
from ..record import Family, Variant
from .class_to_image import PixelDiT
from .from_shapes import pixeldit_params, pixeldit_t2i_params
from .params import PixelDiTParams, PixelDiTT2IParams
from .sizes import BUCKETS
from .text_to_image import PixelDiTT2I


def _pixeldit_settings(params: Any, size: Size | None) -> SamplingSettings:
    """The published settings for the nearer of the two trained sizes."""
    large = size is not None and math.sqrt(size[0] * size[1]) > 384
    return SETTINGS["imagenet512" if large else "imagenet256-epoch320"]


def _pixeldit_t2i_settings(params: Any, size: Size | None) -> SamplingSettings:
    small = size is not None and math.sqrt(size[0] * size[1]) < 724
    return SETTINGS["t2i-512" if small else "t2i-1024"]


def _summary(params: Any) -> str:
    return f"{params.patch_depth} + {params.pixel_depth} blocks of {params.hidden_size}, patch {params.patch_size}"


def _named(start: str) -> dict[str, SamplingSettings]:
    return {name: settings for name, settings in SETTINGS.items() if name.startswith(start)}


PIXELDIT = Family(
    name="pixeldit",
    title="PixelDiT, class-conditional",
    markers=("pixel_embedder.proj.weight", "s_embedder.proj.weight", "y_embedder.embedding_table.weight"),
    params=PixelDiTParams,
    params_from=pixeldit_params,
    network=PixelDiT,
    condition="class",
    null=lambda params, n: torch.full((n,), params.num_classes, dtype=torch.int64),  # the table's last row
    grid=linear_grid,
    settings=_named("imagenet"),
    default_settings=_pixeldit_settings,
    prefers_ema=True,
    trained_sizes=lambda params: ((256, 256), (512, 512)),
    summary=_summary,
    to_uint8=lambda x: ((x.float() + 1) * 127.5 + 0.5).clamp(0, 255).floor().byte(),
)

PIXELDIT_T2I = Family(
    name="pixeldit_t2i",
    title="PixelDiT, text-to-image",
    markers=("pixel_embedder.proj.weight", "y_pos_embedding", "patch_blocks.0.attn.qkv_x.weight"),
    excluded_markers=("lq_proj.latent_proj.0.weight",),  # PiD: this network and a low-resolution input
    params=PixelDiTT2IParams,
    params_from=pixeldit_t2i_params,
    network=PixelDiTT2I,
    # it predicts the way to the noise, and its time is the share of noise in thousandths
    path=lambda params: FlowPath("negative_velocity", time_scale=1000.0, counts_noise=True),
    condition="text",
    text_parts=("embeds",),  # padding takes part, as in training
    text_encoder="gemma_2_2b_it_elm with Load CLIP, type pixeldit",
    null=None,
    grid=sigma_grid,
    settings=_named("t2i"),
    default_settings=_pixeldit_t2i_settings,
    prefers_ema=False,  # the authors' own inference does not
    trained_sizes=lambda params: (*BUCKETS[1024], *BUCKETS[512]),
    summary=_summary,
    dtypes=(torch.bfloat16, torch.float32),
)

OFFICIAL_VARIANTS: dict[str, Variant] = {
    "PixelDiT-B": Variant("pixeldit", PixelDiTParams(768, 12, 12, 2)),
    "PixelDiT-L": Variant("pixeldit", PixelDiTParams(1024, 16, 22, 4)),
    "PixelDiT-XL": Variant("pixeldit", PixelDiTParams(1152, 16, 26, 4)),
    "PixelDiT-T2I": Variant("pixeldit_t2i", PixelDiTT2IParams(1536, 24, 14, 2, 1152, 16)),
}
