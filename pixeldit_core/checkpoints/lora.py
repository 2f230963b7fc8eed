"""LoRA files of every key style, read for a network's own weights, and merged (spec: layouts, section 7)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families import Shapes
from ..model import Model
from ..text import shorten_list
from .lora_delta import Lora, Pair, join_pairs
from .lora_difference import PARTS, join_differences
from .lora_file import LoraFile, read_lora_file
from .lora_folder import find_lora_file
from .lora_match import Matched, find_sizes, find_whole, match_modules, match_paths
from .lora_names import Module, check_adapters, group_parts
from .lora_pixeldit2 import check_network
from .lora_refused import SHOWN, check_adapter, explain_no_lora, explain_no_match
from .peft_config import read_alpha

__all__ = ["Matched", "apply_lora", "find_lora_file", "match_modules", "merge_lora", "read_lora"]

log = logging.getLogger(__name__)


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """A LoRA for the network whose canonical weights have these shapes.

    PEFT's settings (beside the file, or in its header) scale PEFT's pairs alone, which are called lora_A and lora_B;
    where another writer's pair has no alpha, its scale is 1.

    Args:
        path: a `.safetensors` or pickled file, or a folder of PEFT, diffusers or a trainer.

    Raises:
        ValueError: not a readable file; no LoRA, a whole checkpoint, DoRA, LoHa, LoKr or OFT; a LoRA of PixelDiT2 for
            another network, or the reverse; learned embeddings or a text encoder's half of a training; two adapters;
            nothing in it is for this network; another size of network; half a pair; a scale that is no finite number.
    """
    file = read_lora_file(path)
    source = file.source
    modules, others = group_parts(file.tensors, source)
    if not modules:
        check_adapter(file.tensors, source)
        raise ValueError(explain_no_lora(file.tensors, file.path, source))
    check_network(modules, file.tensors, file.metadata, shapes, source)
    matched = match_paths(modules, shapes, source)
    if not matched.modules:
        raise ValueError(explain_no_match(matched.unknown, file.path, source))
    check_adapter(file.tensors, source)
    found = {name: modules[module] for module, name in matched.modules.items()}
    check_adapters({adapter for module in found.values() for adapter in module.adapters}, source)
    pairs, differences = _read_parts(matched, modules, file, shapes)
    if twice := set(pairs) & set(differences):
        raise ValueError(f"{source} has a pair and a difference for {min(twice)}. Save one alone.")
    unknown = (*matched.unknown, *others)
    assumed = any(module.peft and "alpha" not in module.parts for module in found.values())
    notes = file.notes(unknown, assumed)
    if whole := find_whole(others, shapes):
        count = f"{len(whole)} whole tensor{'s' if len(whole) > 1 else ''} of the network ({whole[0]})"
        notes += (f"the file has {count}; a LoRA's pairs alone are applied, so images may differ from the trainer's",)
    return Lora(pairs, unknown, len(matched.modules), matched.total, source, differences, notes)


def merge_lora(tensors: Mapping[str, Tensor], lora: Lora, strength: float) -> dict[str, Tensor]:
    """Canonical tensors with the LoRA added. Those that it does not change are the same objects."""
    return {**tensors, **{name: delta.added_to(tensors[name], strength) for name, delta in lora.deltas.items()}}


@torch.no_grad()
def apply_lora(model: Model, path: str | Path, strength: float = 1.0) -> int:
    """Add a LoRA to a model's weights, in place. Returns how many weights changed.

    Logs a warning of modules skipped, and of all else of its training that is not applied.

    Raises:
        ValueError: as `read_lora`; the model is unchanged then.
    """
    weights = model.network.state_dict()
    lora = read_lora(path, {key: tuple(value.shape) for key, value in weights.items()})
    for name, delta in lora.deltas.items():
        weights[name].copy_(delta.added_to(weights[name], strength))
    if lora.unknown:
        names = shorten_list(lora.unknown, SHOWN)
        log.warning("%s: skipped, as no part of a LoRA for this network: %s.", lora.source, names)
    for note in lora.notes:
        log.warning("%s: %s.", lora.source, note)
    return len(lora.deltas)


def _read_parts(matched: Matched, modules: Mapping[str, Module], file: LoraFile, shapes: Shapes) -> tuple[Any, Any]:
    """Pairs and differences, each by canonical name."""
    parts = {name: modules[module].parts for module, name in matched.modules.items()}
    low_rank = {module: name for module, name in matched.modules.items() if set(modules[module].parts) - set(PARTS)}
    _check_shapes({name: parts[name] for name in low_rank.values()}, find_sizes(shapes), file.source)
    pairs = {name: _pair(modules[module], name, file) for module, name in low_rank.items()}
    differences = _differences(parts)
    for name, pair in pairs.items():
        if (bias := parts[name].get("bias")) is not None:
            _add_bias(differences, name.removesuffix("weight") + "bias", bias.float() * pair.scale, file.source)
    return join_pairs(pairs, shapes, file.source), join_differences(differences, shapes, file.source)


def _pair(module: Module, name: str, file: LoraFile) -> Pair:
    up, down = (module.parts[part].flatten(1) for part in ("up", "down"))
    config = file.config if module.peft else {}
    return Pair(up, down, read_alpha(module.parts.get("alpha"), config, len(down), module.path, name, file.source))


def _add_bias(differences: dict[str, Tensor], name: str, bias: Tensor, source: str) -> None:
    """Add the bias that PEFT's `lora_bias` trains with a pair, and scales like it."""
    if name in differences:
        raise ValueError(f"{source} has two biases for {name}. Save one alone.")
    differences[name] = bias


def _differences(modules: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of modules by the name of their weight: differences by the name of the tensor."""
    return {
        name.removesuffix("weight") + PARTS[part]: value
        for name, parts in modules.items()
        for part, value in parts.items()
        if part in PARTS
    }


def _check_shapes(pairs: Mapping[str, Mapping[str, Tensor]], sizes: Shapes, source: str) -> None:
    """Raise ValueError where a matrix of a pair is missing, or where they are not [out, r] and [r, in]."""
    wrong = []
    for name, parts in pairs.items():
        if missing := {"up", "down"} - set(parts):
            raise ValueError(f"{source}: {name} has no {missing.pop()} matrix. The file is incomplete: get it again.")
        up, down = parts["up"].shape, parts["down"].shape
        if not _fits(up, down, sizes[name]):
            wrong.append(f"{list(up)} x {list(down)} for {name}, which is {list(sizes[name])}")
    if wrong:
        raise ValueError(
            f"{source}: {len(wrong)} of {len(pairs)} pairs do not fit this network, first: {wrong[0]}; expected "
            "[out, r] x [r, in]. It was made for another size of network: choose the checkpoint that it belongs to."
        )


def _fits(up: tuple[int, ...], down: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether up @ down is a weight of this size; those of a convolution may be convolutions, too."""
    if len(up) < 2 or len(down) < 2 or up[1] != down[0] or not up[1]:
        return False
    flat = len(up) == len(down) == 2 and (up[0], down[1]) == (size[0], math.prod(size[1:])) and len(size) > 1
    around = len(size) > 2 and (up[0], down[1:]) == (size[0], size[1:]) and math.prod(up[2:]) == 1
    return flat or around
