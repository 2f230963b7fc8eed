"""LoRA files of every key style, read for a network's own weights, and merged (spec: layouts, section 7)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families import Shapes
from ..model import Model
from ..text import shorten_list
from .layouts import PREFIXES, other_names
from .lora_delta import MAPS, WHOLE, Lora, Pair, join_pairs
from .lora_difference import PARTS, join_differences
from .lora_refused import SHOWN, check_adapter, explain_no_lora, explain_no_match
from .peft_config import read_alpha, read_peft_config
from .read import read_checkpoint

log = logging.getLogger(__name__)

_FILES = [f"{stem}.{end}" for end in ("safetensors", "bin") for stem in ("adapter_model", "pytorch_lora_weights")]

# A tensor of a pair: PEFT's names (A = down, B = up; a name of the adapter may follow), and those of ComfyUI, kohya
# and diffusers. All call alpha the same. A difference: ComfyUI's names.
_TENSOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<peft>[AB])(?:\.\w+)?\.weight"
    r"|lora(?:_linear_layer)?[._](?P<role>up|down)\.weight|(?P<same>alpha|diff|diff_b))"
)
# Where a tensor's name goes on after its module's, in any file that ComfyUI can add to a model.
_ADAPTER_PART = re.compile(
    r"\.(?:lora[_.]|hada_|lokr_|oft_|[ab][12]\.weight$|[wb]_norm$|diff$|diff_b$"
    r"|alpha$|dora_scale$|rescale$|set_weight$|reshape_weight$)"
)
# What writers put before a module's path in the network, any number of times
_DOTTED = ("base_model.", *PREFIXES)
_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_", *_DOTTED, *(piece.replace(".", "_") for piece in _DOTTED))


@dataclass(frozen=True)
class Matched:
    """Which weight of a network each module of a LoRA file is for."""

    modules: dict[str, str] = field(default_factory=dict)  # module as the file calls it -> canonical name of its weight
    unknown: list[str] = field(default_factory=list)  #      modules, and tensors of none, that fit no weight

    @property
    def total(self) -> int:
        return len(self.modules) + len(self.unknown)


def match_modules(keys: Iterable[str], shapes: Shapes, source: str) -> Matched:
    """Match a file's modules to a network by name alone, whatever kind of adapter it is (LoRA, LoHa, LoKr, OFT, ...).

    Args:
        keys: names of the file's tensors, in any of the key styles that `read_lora` reads.
        shapes: of the network's weights by canonical name. Names of ComfyUI's halves of a pixel modulation match, too:
            "pixel_blocks.0.adaLN_modulation_msa.weight", which is not among `shapes`.
        source: file name, for messages.

    Raises:
        ValueError: two modules for one weight.
    """
    parts = {key: _ADAPTER_PART.search(key) for key in keys}
    return _match(dict.fromkeys(key[: part.start()] if part else key for key, part in parts.items()), shapes, source)


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """A LoRA for the network whose canonical weights have these shapes.

    Args:
        path: a `.safetensors` or pickled file, or a folder of PEFT or diffusers.

    Raises:
        ValueError: not a readable file; no LoRA, a whole checkpoint, DoRA, LoHa, LoKr, OFT or a LoRA of PixelDiT2;
            nothing in it is for this network; another size of network; half a pair; a scale that is no finite number.
    """
    file, source = find_lora_file(Path(path))
    tensors, metadata = read_checkpoint(file)
    check_adapter(tensors, metadata, source)
    modules, others = _group(tensors, source)
    config = read_peft_config(file, tensors, metadata)
    matched = _match(modules, shapes, source)
    if not matched.modules:
        raise ValueError(explain_no_match(matched.unknown, source))
    found = {name: modules[module] for module, name in matched.modules.items()}
    low_rank = {module: name for module, name in matched.modules.items() if set(modules[module]) - set(PARTS)}
    _check_shapes({name: found[name] for name in low_rank.values()}, _sizes(shapes), source)
    pairs = {name: _pair(modules[module], module, name, config, source) for module, name in low_rank.items()}
    pairs, differences = join_pairs(pairs, shapes, source), join_differences(_differences(found), shapes, source)
    if twice := set(pairs) & set(differences):
        raise ValueError(f"{source} has a pair and a difference for {min(twice)}. Save one alone.")
    unknown = (*matched.unknown, *others)
    return Lora(pairs, unknown, len(matched.modules), matched.total, source, differences)


def merge_lora(tensors: Mapping[str, Tensor], lora: Lora, strength: float) -> dict[str, Tensor]:
    """Canonical tensors with the LoRA added. Those that it does not change are the same objects."""
    return {**tensors, **{name: delta.added_to(tensors[name], strength) for name, delta in lora.deltas.items()}}


@torch.no_grad()
def apply_lora(model: Model, path: str | Path, strength: float = 1.0) -> int:
    """Add a LoRA to a model's weights, in place. Returns how many weights changed; logs a warning of modules skipped.

    Raises:
        ValueError: as `read_lora`; the model is unchanged then.
    """
    weights = model.network.state_dict()
    lora = read_lora(path, {key: tuple(value.shape) for key, value in weights.items()})
    for name, delta in lora.deltas.items():
        weights[name].copy_(delta.added_to(weights[name], strength))
    if lora.unknown:
        names = shorten_list(lora.unknown, SHOWN)
        log.warning("%s: skipped, as this network has no such weights: %s.", lora.source, names)
    return len(lora.deltas)


def find_lora_file(path: Path) -> tuple[Path, str]:
    """The file of a LoRA, and its name for messages.

    Raises:
        ValueError: a folder without one.
    """
    if not path.is_dir():
        return path, path.name
    names = [name for name in _FILES if (path / name).is_file()]
    if not names:
        raise ValueError(f"{path.name} is a folder without {' or '.join(_FILES)}. Choose the LoRA's own file.")
    return path / names[0], f"{path.name}/{names[0]}"


def _group(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Tensors by module and role ("up", "down", "alpha", "diff", "diff_b"), and the names of those without a role."""
    modules, others = {}, []
    for key, value in tensors.items():
        if not (match := _TENSOR.fullmatch(key)):
            others.append(key)
            continue
        role = match["same"] or match["role"] or {"A": "down", "B": "up"}[match["peft"]]
        parts = modules.setdefault(match["module"], {})
        if role in parts:
            raise ValueError(f"{source} has two {role} tensors for {match['module']}. Save one adapter alone.")
        parts[role] = value
    if not modules:
        raise ValueError(explain_no_lora(tensors, source))
    return modules, others


def _match(modules: Iterable[str], shapes: Shapes, source: str) -> Matched:
    """`match_modules`, of modules in place of tensors."""
    paths = {path.removesuffix(".weight"): name for name in _sizes(shapes) for path in (*other_names(name), name)}
    paths |= {path.replace(".", "_"): name for path, name in paths.items()}  # as kohya writes them; no two become equal
    matched, owners = Matched(), {}
    for module in modules:
        path = module
        while path not in paths and (piece := next((piece for piece in _PREFIXES if path.startswith(piece)), None)):
            path = path[len(piece) :]
        name = paths.get(path)
        if name is None:
            matched.unknown.append(module)
            continue
        if name in owners:
            raise ValueError(f"{source} has two modules for {name}: {owners[name]} and {module}. Save one alone.")
        owners[name] = module
        matched.modules[module] = name
    return matched


def _sizes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights, and of ComfyUI's halves of those of the pixel modulation that have six maps."""
    sizes = {name: tuple(shape) for name, shape in shapes.items() if name.endswith(".weight")}
    for name, shape in tuple(sizes.items()):
        if match := WHOLE.fullmatch(name):
            width, channels = sizes["pixel_embedder.proj.weight"]
            if shape[0] == 6 * width * sizes["s_embedder.proj.weight"][1] // channels:
                sizes |= {f"{match['block']}_{half}.weight": (shape[0] // 2, *shape[1:]) for half in MAPS}
    return sizes


def _pair(parts: Mapping[str, Tensor], module: str, name: str, config: Mapping[str, Any], source: str) -> Pair:
    up, down = (parts[part].flatten(1) for part in ("up", "down"))
    return Pair(up, down, read_alpha(parts.get("alpha"), config, len(down), module, name, source))


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
