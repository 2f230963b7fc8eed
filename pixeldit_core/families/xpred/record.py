"""The records of the four x-prediction networks, another author's small families, and their published variants."""

from __future__ import annotations

import dataclasses
import functools

import torch

from ...flow.convention import Convention
from ...flow.path import FlowPath
from ...flow.times import even_grid, linear_grid, shift_time
from ...settings import SETTINGS, SamplingSettings
from ...sizes import Size
from ..record import Family, Variant
from . import config
from .from_shapes import params_from
from .network import NETWORKS
from .params import XPredParams


def _settings(params: XPredParams | None, size: Size | None) -> SamplingSettings:
    """The authors' settings, at the size that the network was trained on."""
    trained = (params.image_size, params.image_size) if params else None
    return dataclasses.replace(SETTINGS["xpred"], size=trained)


def _summary(params: XPredParams) -> str:
    pixels = f" + {params.pixel_depth}" if params.pixel_depth else ""
    return f"{params.depth}{pixels} blocks of {params.dim}, patch {params.patch_size}"


def _memory(params: XPredParams) -> float:
    """A pixel pathway holds a condition and six maps for every pixel at once; measured (benchmarks/README.md)."""
    return max(1.0, 0.0085 * (params.dim + 6 * params.pixel_dim)) if params.pixel_depth else 1.0


def _size_multiple(params: XPredParams) -> int:
    return params.compress_ratio if params.pixel_depth else params.patch_size


def _size_limits(params: XPredParams) -> tuple[Size, None]:
    """At least one patch, for a pixel pathway leaves out a remainder that makes no patch."""
    multiple = _size_multiple(params)
    least = -(-params.patch_size // multiple) * multiple
    return (least, least), None


_REFERENCE = Convention(
    even_grid,  #         steps of 1 / n, though the time passed to the network is shifted
    network_time=shift_time,
    guided=lambda t, interval, cfg: (callable(cfg) or cfg > 1) and interval[0] <= t <= interval[1],
    min_noise_level=0.05,
)

_family = functools.partial(
    Family,
    params=XPredParams,
    params_from=params_from,
    default_params=config.default_params,
    config_params=config.config_params,
    class_names=config.class_names,
    path=lambda params: FlowPath("image"),
    condition="class",
    null=lambda params, n: torch.full((n,), params.num_classes, dtype=torch.int64),  # the table's last row
    grid=linear_grid,
    reference=_REFERENCE,
    settings={"xpred": SETTINGS["xpred"]},
    default_settings=_settings,
    prefers_ema=True,
    trained_sizes=lambda params: ((params.image_size, params.image_size),),
    summary=_summary,
    memory=_memory,
    size_multiple=_size_multiple,
    size_limits=_size_limits,
)

_CLASS, _REGISTERS = "class_embed.weight", "class_registers"
_PATCH_EMBEDDING, _SEMANTIC_PATCH = "to_patch_embedding.0.weight", "to_semantic_patch.0.weight"
_KINDS = {
    "dit": ("DiT", False, False),
    "mmdit": ("MM-DiT", True, False),
    "pixeldit": ("PixelDiT", False, True),
    "mmpixeldit": ("MM-PixelDiT", True, True),
}  # name: title, whether it has registers for the class, and a pixel pathway

XPRED_FAMILIES = tuple(
    _family(
        name=f"xpred_{name}",
        title=f"x-prediction {title}",
        markers=(
            "time_mlp.1.weight",
            _SEMANTIC_PATCH if pixels else _PATCH_EMBEDDING,
            _REGISTERS if registers else _CLASS,
        ),
        network=NETWORKS[registers, pixels],
    )
    for name, (title, registers, pixels) in _KINDS.items()
)


def _variant(name: str, channels: int, size: int) -> Variant:
    """The only size of each network that has been published, "tiny/4" (spec: xpred, 4.1)."""
    _, registers, pixels = _KINDS[name]
    params = XPredParams(dim=128, depth=6, in_channels=channels, image_size=size, num_registers=4 if registers else 0)
    if pixels:
        params = dataclasses.replace(params, pixel_dim=16, pixel_depth=2, compress_ratio=4, qk_norm="rmsnorm")
    return Variant(f"xpred_{name}", params)


XPRED_VARIANTS: dict[str, Variant] = {
    f"{name}-tiny/4-{dataset}": _variant(name, channels, size)
    for name in _KINDS
    for dataset, channels, size in (("mnist", 1, 28), ("cifar10", 3, 32))
}
