"""DoRA, LoHa, LoKr and OFT files: names matched by the core, read and applied by ComfyUI's `comfy.lora`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import comfy.lora
import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ...pixeldit_core.checkpoints.comfy_adaln import halves_of, is_half, join_shapes
from ...pixeldit_core.checkpoints.lora import Matched, match_modules
from ...pixeldit_core.checkpoints.lora_difference import PARTS, Difference, join_differences, split_difference
from ...pixeldit_core.checkpoints.lora_file import LoraFile, read_lora_file
from ...pixeldit_core.checkpoints.lora_match import is_flat
from ...pixeldit_core.checkpoints.lora_names import Module, Part, check_adapters, split_name
from ...pixeldit_core.checkpoints.lora_refused import explain_no_match
from ...pixeldit_core.checkpoints.peft_config import read_alpha
from .dora import Decomposed

Shape = tuple[int, ...]
_MARKS = (".hada_", ".lokr_", ".oft_", ".dora_scale", ".lora_magnitude_vector")  # in the names of their tensors

# The names of writers on the left, ComfyUI's on the right; a PEFT adapter's own name may follow a part
_SHARED = ("hada_", "lokr_")
_NAME = r"(?:\.(?P<adapter>.+))?"
_PARTS = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rf"lora_A{_NAME}\.weight|lora(?:_linear_layer)?[._]down\.weight", "lora_down.weight"),
        (rf"lora_B{_NAME}\.weight|lora(?:_linear_layer)?[._]up\.weight", "lora_up.weight"),
        (r"lora_magnitude_vector(?:\.weight|(?:\.(?P<adapter>.+?))?(?:\.weight)?)|dora_scale", "dora_scale"),
        (rf"(?P<part>hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|oft_blocks|alpha){_NAME}", r"\g<part>"),
        (r"diff|diff_b", r"\g<0>"),
    )
)


def read_adapters(path: str, stored: Mapping[str, Shape]) -> tuple[dict[str, Any], Matched, tuple[str, ...]] | None:
    """Patches by the MODEL's name of a weight, which modules of the file they come from, and the file's notes.

    None for a plain LoRA.

    Args:
        stored: shapes of the MODEL's weights by name.

    Raises:
        ValueError: nothing is for this network, or not for how it keeps the weight; another size of network; two
            adapters; tensors that are not read.
    """
    file = read_lora_file(path)
    if not any(mark in key for key in file.tensors for mark in _MARKS):
        return None
    shapes, source = join_shapes(stored), file.source
    matched = match_modules(file.tensors, shapes, source)
    if not matched.modules:
        raise ValueError(explain_no_match(matched.unknown, file.path, source))
    patches: dict[str, Any] = {}
    whole: dict[str, Tensor] = {}
    assumed = False
    for module in _sort(file.tensors, matched, source):
        name, parts = matched.modules[module.path], module.parts
        whole |= {name.removesuffix("weight") + kind: parts.pop(part) for part, kind in PARTS.items() if part in parts}
        if not parts:
            continue
        _check_name(name, stored, source)
        settings = _settings(file) if module.peft else {}
        assumed |= module.peft and "alpha" not in parts
        alpha = read_alpha(parts.pop("alpha", None), settings, _rank(parts), module.path, name, source)
        patches[name] = _make_adapter(parts, alpha, name, stored[name], source)
    patches |= difference_patches(join_differences(whole, shapes, source), stored)
    return patches, matched, file.notes(matched.unknown, assumed)


def difference_patches(differences: Mapping[str, Difference], stored: Mapping[str, Shape]) -> dict[str, Any]:
    """ComfyUI's patches by the MODEL's name of a tensor, which may be ComfyUI's half of the whole."""
    patches = {}
    for whole, difference in differences.items():
        parts = {whole: difference}
        if whole not in stored:
            parts = split_difference(whole, difference, stored["pixel_embedder.proj.weight"][0])
        patches |= {name: ("diff", (part.value,)) for name, part in parts.items()}
    return patches


def _settings(file: LoraFile) -> dict[str, Any]:
    """PEFT's settings, with its name of alpha for LoHa and LoKr."""
    return {"lora_alpha": file.config.get("alpha"), **file.config}


def _sort(tensors: Mapping[str, Tensor], matched: Matched, source: str) -> list[Module]:
    """The matched modules with their tensors, by ComfyUI's names."""
    modules = {path: Module(path) for path in matched.modules}
    for key, value in tensors.items():
        path, part = split_name(key)
        if part is None:  # nothing that is read, so refused where the module is one of ours
            path = next((path for path in _parents(key) if path in modules), "")
            part = key[len(path) + 1 :]
        if path in modules:
            modules[path].add(_part(key, part, path, source), value, source)
    check_adapters({adapter for module in modules.values() for adapter in module.adapters}, source)
    return list(modules.values())


def _parents(key: str) -> Iterator[str]:
    """Every dotted start of a name, the longest first."""
    while key := key.rpartition(".")[0]:
        yield key


def _part(key: str, part: str, path: str, source: str) -> Part:
    """What a tensor is, by ComfyUI's name. PEFT writes LoHa and LoKr as LyCORIS does, but for the module's dots."""
    for pattern, name in _PARTS:
        if match := pattern.fullmatch(part):
            peft = part.startswith(("lora_A", "lora_B")) or (part.startswith(_SHARED) and not is_flat(path))
            return Part(match.expand(name), peft, match.groupdict().get("adapter"))
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
    if "oft_blocks" in parts and parts["oft_blocks"].dim() == 4:  # LyCORIS calls both by that name
        raise ValueError(f"{source} is BOFT, which is not read. Merge it into its model where it was trained.")
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
