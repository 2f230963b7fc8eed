"""LoRA files of every key style, read for a network's own weights, and merged (spec: layouts, section 7)."""

from __future__ import annotations

import json
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
from .comfy_adaln import join_shapes
from .json_values import is_number, shown
from .layouts import PREFIXES, find_groups, find_refused, other_names
from .lora_delta import MAPS, WHOLE, Lora, Pair, join_pairs
from .read import read_checkpoint

log = logging.getLogger(__name__)

_FILES = [f"{stem}.{end}" for end in ("safetensors", "bin") for stem in ("adapter_model", "pytorch_lora_weights")]

# A tensor of a pair: PEFT's names (A = down, B = up; a name of the adapter may follow), and those of ComfyUI, kohya
# and diffusers. Numbers of scale are called the same by all.
_TENSOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<peft>[AB])(?:\.\w+)?\.weight"
    r"|lora(?:_linear_layer)?[._](?P<way>up|down)\.weight|(?P<alpha>alpha))"
)
# Where a tensor's name goes on after its module's, in any file that ComfyUI can add to a model.
_ADAPTER_PART = re.compile(
    r"\.(?:lora[_.]|hada_|lokr_|oft_|[ab][12]\.weight$|[wb]_norm$|diff$|diff_b$"
    r"|alpha$|dora_scale$|rescale$|set_weight$|reshape_weight$)"
)
_LONGEST_NAME = 200
_REPEATS, _NESTED = re.compile(r"[*+{?]"), re.compile(r"\)[*+{?]|\\\d|\(\?")
_DOTTED = ("base_model.", *PREFIXES)
_BEFORE = ("lora_unet_", "lora_transformer_", "lycoris_", *_DOTTED, *(piece.replace(".", "_") for piece in _DOTTED))

# Part of a tensor's name, and what such a file is
_REFUSED = {".dora_scale": "DoRA", ".lora_magnitude_vector": "DoRA", ".hada_": "LoHa", ".lokr_": "LoKr"}
# Part of a module's name, with "_" for ".", and what such a file was made for
_MADE_FOR = {
    r"lq_proj_": "PiD",
    r"patch_blocks_\d+_(norm|mlp|attn_(qkv|proj)|adaLN_modulation)_(x|y|img|txt)": "PixelDiT, text-to-image",
    r"patch_blocks_\d+_(mlp_w|attn_(qkv|proj)|adaLN_modulation_0)": "PixelDiT, class-conditional",
    r"patch_blocks_\d+_attention_": "PixelHDM",
    r"pixel_blocks_\d+_": "another size or variant of PixelDiT",
    r"double_blocks|single_transformer_blocks": "Flux",
    r"joint_blocks": "Stable Diffusion 3",
    r"down_blocks|input_blocks|up_blocks|mid_block": "Stable Diffusion",
    r"transformer_blocks": "another model of diffusers",
    r"lora_te|text_model|text_encoder": "a text encoder",
}


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
        ValueError: not a readable file; no LoRA, a whole checkpoint, DoRA, LoHa, LoKr or a LoRA of PixelDiT2; nothing
            in it is for this network; another size of network; half a pair; a scale that is no finite number.
    """
    file, source = find_lora_file(Path(path))
    tensors, metadata = read_checkpoint(file)
    _refuse(tensors, metadata, source)
    modules, others = _sort(tensors, source)
    settings = read_settings(file, tensors, metadata)
    matched = _match(modules, shapes, source)
    if not matched.modules:
        raise ValueError(_why_nothing(matched.unknown, source))
    _check_shapes({name: modules[module] for module, name in matched.modules.items()}, _sizes(shapes), source)
    pairs = {name: _pair(modules[module], module, name, settings, source) for module, name in matched.modules.items()}
    unknown = (*matched.unknown, *others)
    return Lora(join_pairs(pairs, shapes, source), unknown, len(matched.modules), matched.total, source)


def merge_lora(tensors: Mapping[str, Tensor], lora: Lora, strength: float) -> dict[str, Tensor]:
    """Canonical tensors with the LoRA added; those that it does not touch are the same objects."""
    return {**tensors, **{name: pair.added_to(tensors[name], strength) for name, pair in lora.pairs.items()}}


@torch.no_grad()
def apply_lora(model: Model, path: str | Path, strength: float = 1.0) -> int:
    """Add a LoRA to a model's weights, in place. Returns how many weights changed; warns of modules left out.

    Raises:
        ValueError: as `read_lora`; the model is as it was then.
    """
    weights = model.network.state_dict()
    lora = read_lora(path, {key: tuple(value.shape) for key, value in weights.items()})
    for name, pair in lora.pairs.items():
        weights[name].copy_(pair.added_to(weights[name], strength))
    if lora.unknown:
        log.warning("%s: left out, as no weight of this network is theirs: %s.", lora.source, _list(lora.unknown))
    return len(lora.pairs)


def find_lora_file(path: Path) -> tuple[Path, str]:
    """The file of a LoRA itself, and what messages call it.

    Raises:
        ValueError: a folder without any.
    """
    if not path.is_dir():
        return path, path.name
    found = [name for name in _FILES if (path / name).is_file()]
    if not found:
        raise ValueError(f"{path.name} is a folder without {' or '.join(_FILES)}. Choose the file of the LoRA.")
    return path / found[0], f"{path.name}/{found[0]}"


def _refuse(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> None:
    """Raises for files that are known and not for us."""
    bare = any(key.endswith((".lora_A", ".lora_B")) for key in tensors)  # everybody else ends them in ".weight"
    if bare or metadata.get("format", "").startswith("pixeldit2"):
        raise ValueError(f"{source} is a LoRA of PixelDiT2, another network of that name. Choose one for PixelDiT.")
    for key in tensors:
        if kind := next((kind for part, kind in _REFUSED.items() if part in key), None):
            raise ValueError(
                f"{source} is a {kind} (it has {key}); only plain LoRA is read. Merge it into its model where it was "
                "trained, or choose a LoRA."
            )


def _sort(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Tensors by module and role ("up", "down", "alpha"), and the names of those that have no role."""
    modules, others = {}, []
    for key, value in tensors.items():
        if not (found := _TENSOR.fullmatch(key)):
            others.append(key)
            continue
        role = found["alpha"] or found["way"] or {"A": "down", "B": "up"}[found["peft"]]
        parts = modules.setdefault(found["module"], {})
        if role in parts:
            raise ValueError(f"{source} has two tensors for the {role} of {found['module']}. Keep one adapter in it.")
        parts[role] = value
    if not modules:
        raise ValueError(_why_no_lora(tensors, source))
    return modules, others


def _match(modules: Iterable[str], shapes: Shapes, source: str) -> Matched:
    paths = {path.removesuffix(".weight"): name for name in _sizes(shapes) for path in (*other_names(name), name)}
    paths |= {path.replace(".", "_"): name for path, name in paths.items()}  # kohya's; no two paths are alike then
    matched, owners = Matched(), {}
    for module in modules:
        path = module
        while path not in paths and (piece := next((piece for piece in _BEFORE if path.startswith(piece)), None)):
            path = path[len(piece) :]
        name = paths.get(path)
        if name is None:
            matched.unknown.append(module)
            continue
        if name in owners:
            raise ValueError(f"{source} has two modules for {name}: {owners[name]} and {module}. Keep one of them.")
        owners[name] = module
        matched.modules[module] = name
    return matched


def _sizes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights, and of ComfyUI's halves of those of the pixel modulation that have six maps."""
    sizes = {name: tuple(shape) for name, shape in shapes.items() if name.endswith(".weight")}
    for name, shape in tuple(sizes.items()):
        if found := WHOLE.fullmatch(name):
            width, channels = sizes["pixel_embedder.proj.weight"]
            if shape[0] == 6 * width * sizes["s_embedder.proj.weight"][1] // channels:
                sizes |= {f"{found['block']}_{half}.weight": (shape[0] // 2, *shape[1:]) for half in MAPS}
    return sizes


def _pair(parts: Mapping[str, Tensor], module: str, name: str, settings: Mapping[str, Any], source: str) -> Pair:
    up, down = parts["up"], parts["down"]
    return Pair(up, down, read_alpha(parts.get("alpha"), settings, len(down), module, name, source))


def read_alpha(
    stored: Tensor | None, settings: Mapping[str, Any], rank: int, module: str, name: str, source: str
) -> float | None:
    """Alpha of a module, where scale = alpha / rank: the file's own tensor, else from its `read_settings`; None = rank.

    Raises:
        ValueError: no finite number.
    """
    alpha: Any
    if stored is None:
        alpha = _alpha_of(settings, module, name, source)
        factor = math.sqrt(rank) if settings.get("use_rslora") else 1.0  # alpha / sqrt(r) as alpha / r
    else:
        alpha, factor = (stored.item() if stored.numel() == 1 else list(stored.shape)), 1.0
    if alpha is None:
        return None
    if not is_number(alpha):
        raise ValueError(f"{source}: alpha of {module} is {shown(alpha)}, and should be a finite number below 2**31.")
    return factor * alpha


def _alpha_of(settings: Mapping[str, Any], module: str, name: str, source: str) -> Any:
    """What the settings have for a module: the first pattern that fits its name or the end of it, else the general."""
    paths = (module.removeprefix("base_model.model."), name.removesuffix(".weight"))
    for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
        # names and a wildcard or two; others could take a file's own time to match
        if len(pattern) > _LONGEST_NAME or len(_REPEATS.findall(pattern)) > 3 or _NESTED.search(pattern):
            raise ValueError(f"{source}: alpha_pattern {pattern[:80]!r} is too involved. Get the LoRA again.")
        try:
            if any(re.fullmatch(rf"(?:.*\.)?(?:{pattern})", path) for path in paths):
                return alpha
        except re.error as error:
            raise ValueError(f"{source}: alpha_pattern {pattern!r} is no regular expression ({error}).") from error
    return settings.get("lora_alpha")


def read_settings(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's settings: of the header, else of the file beside it; none for other writers.

    Ranks are not looked up: the matrices have them.
    """
    beside = file.with_name("adapter_config.json")
    if (text := metadata.get("lora_adapter_metadata")) is not None:
        origin = f"{file.name}: its lora_adapter_metadata"
    elif (file.stem == "adapter_model" or any(key.startswith("base_model.") for key in tensors)) and beside.is_file():
        text, origin = beside.read_bytes(), f"{beside.name} beside {file.name}"
    else:
        return {}
    try:
        stored = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not JSON ({error}). Get the LoRA again.") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{origin} is not a JSON object. Get the LoRA again.")
    parts = {key: key.rpartition(".") for key in stored}  # a pipeline puts the model's name first: "transformer.r"
    settings = {last: stored[key] for key, (start, dot, last) in parts.items() if start + dot in ("", *_DOTTED)}
    if not isinstance(settings.get("alpha_pattern") or {}, dict):
        raise ValueError(f"{origin} has an alpha_pattern that is not a JSON object. Get the LoRA again.")
    return settings


def _check_shapes(found: Mapping[str, Mapping[str, Tensor]], sizes: Shapes, source: str) -> None:
    """Raises where half of a pair is missing, and where matrices are not [out, r] and [r, in] of their weight."""
    wrong = []
    for name, parts in found.items():
        if missing := {"up", "down"} - set(parts):
            raise ValueError(f"{source}: {name} has no {missing.pop()} matrix. The file is incomplete: get it again.")
        up, down = parts["up"].shape, parts["down"].shape
        fits = len(up) == len(down) == 2 and up[1] == down[0] > 0 and (up[0], down[1]) == sizes[name]
        if not fits:
            wrong.append(f"{list(up)} x {list(down)} for {name}, which is {list(sizes[name])}")
    if wrong:
        raise ValueError(
            f"{source}: {len(wrong)} of {len(found)} pairs do not fit this network, first: {wrong[0]}; expected "
            "[out, r] x [r, in]. It was made for another size of network: choose the checkpoint that it belongs to."
        )


def _why_no_lora(tensors: Mapping[str, Tensor], source: str) -> str:
    shapes = join_shapes({key: tuple(value.shape) for key, value in tensors.items()})
    if groups := find_groups(shapes):
        return f"{source} is a whole checkpoint ({groups[0].family.title}), not a LoRA. Load it as the model itself."
    if kind := find_refused(shapes):
        return f"{source} is {kind.title}, and no LoRA of PixelDiT. Choose another file."
    return f"{source} holds no LoRA: {_list(sorted(tensors)) or 'no tensors at all'}. Choose another file."


def _why_nothing(unknown: list[str], source: str) -> str:
    flat = " ".join(unknown).replace(".", "_")
    made_for = next((title for part, title in _MADE_FOR.items() if re.search(part, flat)), None)
    told = f"It was made for {made_for}." if made_for else "It was made for another model."
    return (
        f"{source}: none of its {len(unknown)} modules is in this network, first: {_list(sorted(unknown))}. {told} "
        "Choose a LoRA for this model, or the model that it belongs to."
    )


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
