"""The record of PixelHDM, another author's text-to-image family, and its published variants (spec: pixelhdm)."""

from __future__ import annotations

from torch import Tensor

from ...flow.convention import Convention
from ...flow.path import FlowPath
from ...flow.times import cut_grid, trained_grid
from ...settings import SETTINGS
from ...sizes import Size
from ..record import Family, Variant
from .from_shapes import params_from
from .network import PixelHDM
from .params import PixelHDMParams
from .sizes import pixelhdm_buckets


def _path(params: PixelHDMParams | None) -> FlowPath:
    """Trained on times from time_eps to 1 - time_eps; others are clamped to them."""
    eps = (params or PixelHDMParams()).time_eps
    return FlowPath(time_range=(eps, 1 - eps))


def _summary(params: PixelHDMParams) -> str:
    return f"{params.patch_layers} + {params.pixel_layers} blocks of {params.hidden_dim}, patch {params.patch_size}"


def _size_limits(params: PixelHDMParams) -> tuple[Size, Size]:
    """From one patch to as many as there are rotary positions for."""
    p = params.patch_size
    return (p, p), (params.mrope_img_max_height * p, params.mrope_img_max_width * p)


def _truncated_uint8(x: Tensor) -> Tensor:
    return ((x.float().clamp(-1, 1) + 1) / 2 * 255).byte()  # cut, not rounded


PIXELHDM = Family(
    name="pixelhdm",
    title="PixelHDM, text-to-image",
    markers=("pixel_blocks.0.compaction.compress.weight", "patch_embed.proj_down.weight", "pixel_embed.proj.weight"),
    params=PixelHDMParams,
    params_from=params_from,
    network=PixelHDM,
    path=_path,
    channels_last=True,
    condition="text",
    text_parts=("embeds", "mask", "pooled"),
    text_encoder="Qwen3-0.6B with Load CLIP, any type",
    null=None,
    grid=trained_grid,
    reference=Convention(cut_grid, guided=lambda t, interval, cfg: callable(cfg) or cfg > 1, to_uint8=_truncated_uint8),
    settings={"pixelhdm": SETTINGS["pixelhdm"]},
    default_settings=lambda params, size: SETTINGS["pixelhdm"],
    prefers_ema=True,
    trained_sizes=lambda params: pixelhdm_buckets(),
    summary=_summary,
    size_limits=_size_limits,
    max_tokens=lambda params: params.mrope_text_max_len,
    # files hold the projections of every attention under two names
    aliases={
        "attention.q_proj.": "attention.qkv_proj.q_proj.",
        "attention.k_proj.": "attention.qkv_proj.k_proj.",
        "attention.v_proj.": "attention.qkv_proj.v_proj.",
        "attention.out_proj.": "attention.out_proj_layer.out_proj.",
        "attention.gate_proj.": "attention.gate.proj.",
    },
)

_SMALL = PixelHDMParams(hidden_dim=512, patch_layers=8, pixel_layers=1, num_heads=8, num_kv_heads=2)
_LARGE = PixelHDMParams(hidden_dim=1152, patch_layers=26, mrope_img_h_dim=28, mrope_img_w_dim=28)

PIXELHDM_VARIANTS: dict[str, Variant] = {
    "PixelHDM": Variant("pixelhdm", PixelHDMParams()),
    "PixelHDM-small": Variant("pixelhdm", _SMALL),
    "PixelHDM-large": Variant("pixelhdm", _LARGE),
}
