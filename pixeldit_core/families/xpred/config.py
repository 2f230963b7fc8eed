"""Params of an x-prediction network from its trainer's configuration, and weak defaults (spec: xpred, 4 and 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...labels import Names
from ..shapes import Shapes
from .from_shapes import guess_image_size, inner_width

_NAMES: dict[str, Names] = {
    "mnist": tuple((str(digit),) for digit in range(10)),
    "cifar10": tuple((name,) for name in "airplane automobile bird cat deer dog frog horse ship truck".split()),
}
# A configuration's names for what shapes determine, too; a file that contradicts itself is rejected.
_MODEL = {"heads": "heads", "dim_head": "dim_head", "patch_size": "patch_size", "use_abs_pe": "use_abs_pe"}
_PATCHES = {"dim": "dim", "depth": "depth"}
_PIXELS = {"dim": "dit_dim", "depth": "dit_depth", "pixel_dim": "pit_dim", "pixel_depth": "pit_depth"}


def default_params(shapes: Shapes) -> dict[str, Any]:
    """Weak defaults: image_size from the tables of positions, and the only published heads that make a width of 128.

    None stands for what only a configuration can provide.
    """
    defaults: dict[str, Any] = {}
    if size := guess_image_size(shapes):
        defaults["image_size"] = size
    published = inner_width(shapes) == 128  # of all networks that the later revision can make
    return defaults | ({"heads": 4, "dim_head": 32} if published else {"heads": None, "dim_head": None})


def config_params(config: Mapping[str, Any], from_shapes: Mapping[str, Any]) -> dict[str, Any]:
    """What a trainer's configuration declares, under our names; sizes relative to `from_shapes` (spec: xpred, 6.1).

    Raises:
        TypeError: an mlp_ratio that is no number.
    """
    dataset, model = (config.get(part) or {} for part in ("dataset", "model"))
    declared = {
        "image_size": dataset.get("image_size"),
        "in_channels": dataset.get("in_channels"),
        "image_mean": dataset.get("normalize_mean"),
        "image_std": dataset.get("normalize_std"),
    }
    if not model:
        return declared
    pixels, registers = "pixel_dim" in from_shapes, from_shapes["num_registers"] > 0
    names = _MODEL | (_PIXELS if pixels else _PATCHES)
    names |= {"compress_ratio": "compress_ratio"} if pixels else {}
    names |= {"num_registers": "num_registers"} if registers else {}
    declared |= {name: model.get(theirs) for name, theirs in names.items()}
    if "qk_norm" in model:
        declared["qk_norm"] = model["qk_norm"] if model["qk_norm"] in ("rmsnorm", "layernorm") else ""
    if (ratio := model.get("mlp_ratio")) is not None:
        if not isinstance(ratio, int | float):  # reject strings (str * int)
            raise TypeError(f"mlp_ratio is of type {type(ratio).__name__}, and should be a number")
        declared["mlp_hidden_dim"] = int(from_shapes["dim"] * ratio)
        declared |= {"pixel_mlp_hidden_dim": int(from_shapes["pixel_dim"] * ratio)} if pixels else {}
    return declared


def class_names(config: Mapping[str, Any]) -> Names | None:
    """Of the data set that a configuration names; None if it is not one of the published ones."""
    dataset = config.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else config.get("dataset_name")
    return _NAMES.get(name) if isinstance(name, str) else None
