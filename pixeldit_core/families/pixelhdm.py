"""PixelHDM, another author's text-to-image relative of PixelDiT, as records (spec: pixelhdm)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..flow.grid import cut_grid, trained_grid
from ..flow.rules import Rule
from ..networks.pixelhdm import PixelHDM, PixelHDMParams, params_from
from ..recipes import RECIPES
from ..sizes import pixelhdm_buckets
from .record import Family, Preset


def _velocity(
    network: Callable, params: PixelHDMParams, x: Tensor, t: Tensor, condition: tuple, **options: Any
) -> Tensor:
    """The network's own, at the nearest time that it was trained on; it paints with the channels last."""
    t = t.clamp(params.time_eps, 1 - params.time_eps)
    return network(x, t, *condition, **options).movedim(-1, 1)


def _summary(params: PixelHDMParams) -> str:
    return f"{params.patch_layers} + {params.pixel_layers} blocks of {params.hidden_dim}, patch {params.patch_size}"


def _published_uint8(x: Tensor) -> Tensor:
    return ((x.float().clamp(-1, 1) + 1) / 2 * 255).byte()  # cut, not rounded


PIXELHDM = Family(
    name="pixelhdm",
    title="PixelHDM, text-to-image",
    markers=("pixel_blocks.0.compaction.compress.weight", "patch_embed.proj_down.weight", "pixel_embed.proj.weight"),
    params=PixelHDMParams,
    params_from=params_from,
    network=PixelHDM,
    velocity=_velocity,
    condition="text",
    text_parts=("embeds", "mask", "pooled"),
    text_encoder="Qwen3-0.6B with Load CLIP, any type",
    null=None,
    grid=trained_grid,
    published=Rule(cut_grid, guided=lambda t, interval, cfg: callable(cfg) or cfg > 1, to_uint8=_published_uint8),
    recipes={"pixelhdm": RECIPES["pixelhdm"]},
    default_recipe=lambda params, size: RECIPES["pixelhdm"],
    prefers_ema=True,
    trained_sizes=lambda params: pixelhdm_buckets(),
    summary=_summary,
    # every attention holds its projections under two names
    aliases={
        "attention.q_proj.": "attention.qkv_proj.q_proj.",
        "attention.k_proj.": "attention.qkv_proj.k_proj.",
        "attention.v_proj.": "attention.qkv_proj.v_proj.",
        "attention.out_proj.": "attention.out_proj_layer.out_proj.",
        "attention.gate_proj.": "attention.gate.proj.",
    },
)

_SMALL = {"hidden_dim": 512, "patch_layers": 8, "pixel_layers": 1, "num_heads": 8, "num_kv_heads": 2}
_LARGE = {"hidden_dim": 1152, "patch_layers": 26, "mrope_img_h_dim": 28, "mrope_img_w_dim": 28}

PIXELHDM_PRESETS: dict[str, Preset] = {
    "PixelHDM": Preset("pixelhdm", PixelHDMParams()),
    "PixelHDM-small": Preset("pixelhdm", PixelHDMParams(**_SMALL)),
    "PixelHDM-large": Preset("pixelhdm", PixelHDMParams(**_LARGE)),
}
