"""DoRA, LoHa, LoKr and OFT files: names matched by the core, read and applied by ComfyUI's `comfy.lora`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import comfy.lora
import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ...pixeldit_core.checkpoints.comfy_adaln import halves_of, is_half, join_shapes
from ...pixeldit_core.checkpoints.lora import Matched, find_lora_file, match_modules
from ...pixeldit_core.checkpoints.lora_difference import PARTS, Difference, join_differences, split_difference
from ...pixeldit_core.checkpoints.peft_config import read_alpha, read_peft_config
from ...pixeldit_core.checkpoints.read import read_checkpoint
from .dora import Decomposed

Shape = tuple[int, ...]
_MARKS = (".hada_", ".lokr_", ".oft_", ".dora_scale", ".lora_magnitude_vector")  # in the names of their tensors

# The names of writers on the left, ComfyUI's on the right; a PEFT adapter's own name may follow a part
_PARTS = (
    (r"lora_A(?:\.\w+)?\.weight|lora(?:_linear_layer)?[._]down\.weight", "lora_down.weight"),
    (r"lora_B(?:\.\w+)?\.weight|lora(?:_linear_layer)?[._]up\.weight", "lora_up.weight"),
    (r"lora_magnitude_vector(?:\.\w+)?(?:\.weight)?|dora_scale", "dora_scale"),
    (r"(hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|oft_blocks|alpha)(?:\.\w+)?", r"\1"),
    (r"diff|diff_b", r"\g<0>"),
)


def read_adapters(path: str, stored: Mapping[str, Shape]) -> tuple[dict[str, Any], Matched] | None:
    """Patches by the MODEL's name of a weight, and which modules of the file they come from; None for a plain LoRA.

    Args:
        stored: shapes of the MODEL's weights by name.

    Raises:
        ValueError: nothing is for this network, or not for how it keeps the weight; another size of network; tensors
            that are not read.
    """
    file, source = find_lora_file(Path(path))
    tensors, metadata = read_checkpoint(file)
    if not any(mark in key for key in tensors for mark in _MARKS):
        return None
    settings = read_peft_config(file, tensors, metadata)
    settings.setdefault("lora_alpha", settings.get("alpha"))  # PEFT's name of it for LoHa and LoKr
    matched = match_modules(tensors, join_shapes(stored), source)
    if not matched.modules:
        raise ValueError(
            f"{source}: none of its {matched.total} modules is in this network, first: {min(matched.unknown)}. Choose "
            "a LoRA for this model, or the model that it belongs to."
        )
    patches: dict[str, Any] = {}
    whole: dict[str, Tensor] = {}
    for module, parts in _sort(tensors, matched, source).items():
        name = matched.modules[module]
        whole |= {name.removesuffix("weight") + kind: parts.pop(part) for part, kind in PARTS.items() if part in parts}
        if not parts:
            continue
        _check_name(name, stored, source)
        alpha = read_alpha(parts.pop("alpha", None), settings, _rank(parts), module, name, source)
        patches[name] = _make_adapter(parts, alpha, name, stored[name], source)
    differences = join_differences(whole, join_shapes(stored), source)
    return patches | difference_patches(differences, stored), matched


def difference_patches(differences: Mapping[str, Difference], stored: Mapping[str, Shape]) -> dict[str, Any]:
    """ComfyUI's patches by the MODEL's name of a tensor, which may be ComfyUI's half of the whole."""
    patches = {}
    for whole, difference in differences.items():
        parts = {whole: difference}
        if whole not in stored:
            parts = split_difference(whole, difference, stored["pixel_embedder.proj.weight"][0])
        patches |= {name: ("diff", (part.value,)) for name, part in parts.items()}
    return patches


def _sort(tensors: Mapping[str, Tensor], matched: Matched, source: str) -> dict[str, dict[str, Tensor]]:
    """The tensors of each matched module, by ComfyUI's names."""
    modules: dict[str, dict[str, Tensor]] = {module: {} for module in matched.modules}
    for key, value in tensors.items():
        module = key.rpartition(".")[0]
        while module and module not in modules:
            module = module.rpartition(".")[0]
        if module:
            modules[module][_part(key, key[len(module) + 1 :], source)] = value
    return modules


def _part(key: str, part: str, source: str) -> str:
    for pattern, name in _PARTS:
        if match := re.fullmatch(pattern, part):
            return match.expand(name)
    raise ValueError(
        f"{source} has {key}, which is not read: only the matrices of LoRA, DoRA, LoHa, LoKr and OFT are. Merge it "
        "into its model where it was trained."
    )


def _check_name(name: str, stored: Mapping[str, Shape], source: str) -> None:
    """Raises where this MODEL keeps a pixel modulation in another form; only a plain LoRA can be converted."""
    if name in stored:
        return
    if is_half(name):
        detail, loader = (
            "ComfyUI's own PixelDiT has, and this model as a part of another matrix",
            "Load Diffusion Model",
        )
    else:
        detail, loader = f"this model keeps in halves ({' and '.join(halves_of(name))})", "PixelDiT Loader"
    raise ValueError(f"{source} changes {name}, which {detail}. Load the model with {loader}.")


def _rank(parts: Mapping[str, Tensor]) -> int:
    names = ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
    return next((len(parts[name]) for name in names if name in parts), 1)


def _make_adapter(
    parts: dict[str, Tensor], alpha: float | None, name: str, shape: Shape, source: str
) -> WeightAdapterBase:
    """ComfyUI's adapter, checked to fit a weight of this shape: while it samples, ComfyUI would only log an error."""
    magnitude = parts.pop("dora_scale", None)
    try:
        made = _delta_shape({part: value.to("meta") for part, value in parts.items()}, shape)
        fits = len(shape) > 1 and (made[0], prod(made[1:])) == (shape[0], prod(shape[1:]))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{source}: {name} has {', '.join(parts)}, which do not make a matrix. The file is damaged: get it again."
        ) from error
    if not fits or (magnitude is not None and magnitude.numel() not in shape):
        sizes = ", ".join(f"{part} {list(value.shape)}" for part, value in parts.items())
        raise ValueError(
            f"{source}: {sizes} do not fit {name}, which is {list(shape)}. It was made for another size of network: "
            "choose the checkpoint that it belongs to."
        )
    if alpha is not None:
        parts["alpha"] = torch.tensor(alpha)
    adapter = comfy.lora.load_lora({f"{name}.{part}": value for part, value in parts.items()}, {name: name})[name]
    return adapter if magnitude is None else Decomposed.around(adapter, magnitude, shape)


def _delta_shape(parts: Mapping[str, Tensor], shape: Shape) -> Shape:
    """Shape of what the parts (on "meta") make for a weight of `shape`, as a matrix for that of a convolution."""
    if "oft_blocks" in parts:  # [blocks, n, n]: a rotation of the rows
        blocks, rows, columns = parts["oft_blocks"].shape
        return (blocks * rows, *shape[1:]) if rows == columns else (0,)
    if "hada_w1_a" in parts:
        first, second = (parts[f"hada_w{i}_a"] @ parts[f"hada_w{i}_b"] for i in (1, 2))
        return tuple(first.shape) if first.shape == second.shape else (0,)
    if any(part.startswith("lokr_") for part in parts):
        names = ("lokr_w1", "lokr_w2")
        (a, b), (c, *d) = ((parts[x] if x in parts else parts[f"{x}_a"] @ parts[f"{x}_b"]).shape for x in names)
        return (a * c, b * prod(d))
    return tuple((parts["lora_up.weight"].flatten(1) @ parts["lora_down.weight"].flatten(1)).shape)
