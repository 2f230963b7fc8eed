"""The four x-prediction networks, another author's small relatives of PixelDiT, as records (spec: xpred)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from ...flow.convention import Convention
from ...flow.path import FlowPath
from ...flow.times import even_grid, linear_grid, shift_time
from ...labels import Names
from ...settings import SETTINGS, SamplingSettings
from ...sizes import Size
from ..record import Family, Variant
from ..shapes import Shapes
from .network import NETWORKS, XPredParams, guess_image_size, inner_width, params_from

_MIN_NOISE_LEVEL = 0.05  # of the reference program's divisor
_NAMES: dict[str, Names] = {
    "mnist": tuple((str(digit),) for digit in range(10)),
    "cifar10": tuple((name,) for name in "airplane automobile bird cat deer dog frog horse ship truck".split()),
}
# A configuration's names for what shapes tell, too; a file that contradicts itself is refused.
_MODEL = {"heads": "heads", "dim_head": "dim_head", "patch_size": "patch_size", "use_abs_pe": "use_abs_pe"}
_PATCHES = {"dim": "dim", "depth": "depth"}
_PIXELS = {"dim": "dit_dim", "depth": "dit_depth", "pixel_dim": "pit_dim", "pixel_depth": "pit_depth"}


def _default_params(shapes: Shapes) -> dict[str, Any]:
    """What shapes alone do not tell: heads without norms, and sides that are no whole number of patches."""
    guessed: dict[str, Any] = {}
    if size := guess_image_size(shapes):
        guessed["image_size"] = size
    known = inner_width(shapes) == 128  # of all networks that the later revision can make
    return guessed | ({"heads": 4, "dim_head": 32} if known else {"heads": None, "dim_head": None})


def _config_params(config: Mapping, told: Mapping) -> dict[str, Any]:
    """What a trainer's configuration says, under our names; `told` is what the shapes do (spec: xpred, 6.1)."""
    dataset, model = (config.get(part) or {} for part in ("dataset", "model"))
    found = {
        "image_size": dataset.get("image_size"),
        "in_channels": dataset.get("in_channels"),
        "image_mean": dataset.get("normalize_mean"),
        "image_std": dataset.get("normalize_std"),
    }
    if not model:
        return found
    pixels, registers = "pixel_dim" in told, told["num_registers"] > 0
    names = _MODEL | (_PIXELS if pixels else _PATCHES)
    names |= {"compress_ratio": "compress_ratio"} if pixels else {}
    names |= {"num_registers": "num_registers"} if registers else {}
    found |= {name: model.get(theirs) for name, theirs in names.items()}
    if "qk_norm" in model:
        found["qk_norm"] = model["qk_norm"] if model["qk_norm"] in ("rmsnorm", "layernorm") else ""
    if (ratio := model.get("mlp_ratio")) is not None:
        if not isinstance(ratio, int | float):  # a text times a width would be a book
            raise TypeError(f"mlp_ratio is of type {type(ratio).__name__}, and should be a number")
        found["mlp_hidden_dim"] = int(told["dim"] * ratio)
        found |= {"pixel_mlp_hidden_dim": int(told["pixel_dim"] * ratio)} if pixels else {}
    return found


def _class_names(config: Mapping) -> Names | None:
    dataset = config.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else config.get("dataset_name")
    return _NAMES.get(name) if isinstance(name, str) else None


def _settings(params: XPredParams | None, size: Size | None) -> SamplingSettings:
    """The authors' settings, at the size that the network was trained on."""
    own = (params.image_size, params.image_size) if params else None
    return dataclasses.replace(SETTINGS["xpred"], size=own)


def _summary(params: XPredParams) -> str:
    pixels = f" + {params.pixel_depth}" if params.pixel_depth else ""
    return f"{params.depth}{pixels} blocks of {params.dim}, patch {params.patch_size}"


def _memory(params: XPredParams) -> float:
    """A pixel path holds a condition and six maps for every pixel at once; the factor is measured (docs/speed.md)."""
    return max(1.0, 0.0085 * (params.dim + 6 * params.pixel_dim)) if params.pixel_depth else 1.0


_REFERENCE = Convention(
    even_grid,  #         steps of 1 / n, also where the network is told shifted times
    network_time=shift_time,
    guided=lambda t, interval, cfg: (callable(cfg) or cfg > 1) and interval[0] <= t <= interval[1],
    min_noise_level=_MIN_NOISE_LEVEL,
)

_family = functools.partial(
    Family,
    params=XPredParams,
    params_from=params_from,
    default_params=_default_params,
    config_params=_config_params,
    class_names=_class_names,
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
    size_multiple=lambda params: params.compress_ratio if params.pixel_depth else params.patch_size,
)

_CLASS, _REGISTERS = "class_embed.weight", "class_registers"
_PATCH_EMBEDDING, _SEMANTIC_PATCH = "to_patch_embedding.0.weight", "to_semantic_patch.0.weight"
_KINDS = {
    "dit": ("DiT", False, False),
    "mmdit": ("MM-DiT", True, False),
    "pixeldit": ("PixelDiT", False, True),
    "mmpixeldit": ("MM-PixelDiT", True, True),
}  # name: title, whether it has registers for the class, and a pixel path

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


def _preset(name: str, channels: int, size: int) -> Variant:
    """The only size of each network that has been published, "tiny/4" (spec: xpred, 4.1)."""
    _, registers, pixels = _KINDS[name]
    sizes = {"dim": 128, "depth": 6, "in_channels": channels, "image_size": size}
    sizes |= {"num_registers": 4} if registers else {}
    sizes |= {"pixel_dim": 16, "pixel_depth": 2, "compress_ratio": 4, "qk_norm": "rmsnorm"} if pixels else {}
    return Variant(f"xpred_{name}", XPredParams(**sizes))


XPRED_VARIANTS: dict[str, Variant] = {
    f"{name}-tiny/4-{dataset}": _preset(name, channels, size)
    for name in _KINDS
    for dataset, channels, size in (("mnist", 1, 28), ("cifar10", 3, 32))
}
