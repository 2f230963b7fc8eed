"""The record of PixelDiT2 and its variants (spec: pixeldit2)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...flow.convention import Convention
from ...flow.guidance import CFG
from ...flow.path import FlowPath
from ...flow.times import linear_grid, unit_grid
from ...settings import SETTINGS, SamplingSettings
from ...sizes import Size
from ..record import Family, Variant
from .from_shapes import default_params, params_from
from .network import PixelDiT2, grounded_rows
from .params import PixelDiT2Params

_SIZES: tuple[Size, ...] = ((256, 256), (512, 512))


def _path(params: PixelDiT2Params | None) -> FlowPath:
    return FlowPath("image", noise_scale=params.noise_scale if params else 1.0)


def _is_large(params: PixelDiT2Params) -> bool:
    """Whether it is of the kind that was trained at 512 x 512: shapes do not tell sizes of images."""
    return params.noise_scale > 1


def _settings(params: PixelDiT2Params | None, size: Size | None) -> SamplingSettings:
    """The published settings of the network; without one, those for the size."""
    large = size is not None and min(size) > 256 if params is None else _is_large(params)
    return SETTINGS["pixeldit2-512" if large else "pixeldit2-256"]


def _trained_sizes(params: PixelDiT2Params | None) -> tuple[Size, ...]:
    return _SIZES if params is None else (_SIZES[_is_large(params)],)


def _guided(t: float, interval: tuple[float, float], cfg: CFG) -> bool:
    """Compared in float32; a lower limit of 0 is none."""
    low, high = torch.tensor(interval, dtype=torch.float32).tolist()
    return (t > low or low <= 0) and t < high


def _null(params: PixelDiT2Params, n: int) -> Tensor:
    """The last row of the class table, whose rows are not grounded."""
    return torch.full((n,), params.num_classes, dtype=torch.int64)


def _unknown(params: PixelDiT2Params, n: int) -> tuple[Tensor, Tensor]:
    """The null class, grounded all the same: trained, too, for an image of any class."""
    return _null(params, n), torch.zeros(n, dtype=torch.bool)


def _class_arguments(params: PixelDiT2Params, labels: Tensor) -> tuple[Tensor, ...]:
    """Of a network without its encoder, no row is grounded."""
    if params.encoder_depth:
        return (labels,)
    return labels, torch.ones(len(labels), dtype=torch.bool, device=labels.device)


def _choose(params: PixelDiT2Params, condition: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {"rows": grounded_rows(params.num_classes, *condition)}


def _memory(params: PixelDiT2Params) -> float:
    """Of a grounded call, that of the encoder included: the patches and what modulates each of them; measured."""
    return 0.083 * params.hidden_size / params.patch_size**2


def _summary(params: PixelDiT2Params) -> str:
    return f"{params.depth} blocks of {params.hidden_size}, patch {params.patch_size}"


PIXELDIT2 = Family(
    name="pixeldit2",
    title="PixelDiT2",
    markers=(
        "s_embedder.proj.weight",
        "final_layer.adaLN_modulation.1.weight",
        "dino_conditioner.dino_proj.input_proj.weight",
    ),
    params=PixelDiT2Params,
    params_from=params_from,
    default_params=default_params,
    network=PixelDiT2,
    path=_path,
    encoder="dino_conditioner.encoder",
    condition="class",
    null=_null,
    unknown=_unknown,
    class_arguments=_class_arguments,
    choose=_choose,
    grid=linear_grid,
    reference=Convention(unit_grid, guided=_guided, min_noise_level=0.05),
    settings={name: SETTINGS[name] for name in ("pixeldit2-256", "pixeldit2-512")},
    default_settings=_settings,
    prefers_ema=True,
    trained_sizes=_trained_sizes,
    summary=_summary,
    memory=_memory,
    to_uint8=lambda x: ((x.float() + 1) * 127.5 + 0.5).clamp(0, 255).floor().byte(),
    dtypes=(torch.bfloat16, torch.float32),
)

_BASE = PixelDiT2Params(hidden_size=768, num_heads=12, depth=12, in_context_start=4)
_LARGE = PixelDiT2Params(hidden_size=1024, num_heads=16, depth=24)
_HUGE = PixelDiT2Params(hidden_size=1280, num_heads=16, depth=32)
_HUGE_512 = dataclasses.replace(
    _HUGE,
    mlp_hidden_size=3424,
    encoder_dim=768,
    encoder_num_heads=12,
    single_silu_cond=True,
    noise_scale=2.0,
)
_GIANT = PixelDiT2Params(hidden_size=1664, num_heads=16, depth=40, patch_size=32)

PIXELDIT2_VARIANTS: dict[str, Variant] = {
    f"PixelDiT2-{name}": Variant("pixeldit2", params)
    for name, params in {
        "B/16": _BASE,
        "L/16": _LARGE,
        "H/16": _HUGE,
        "H/16-512": _HUGE_512,
        "H/32": dataclasses.replace(_HUGE, patch_size=32),
        "G/32": _GIANT,
    }.items()
}
