"""Names of tensors in files: what writers put before them, what to ignore, what to write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..families import FAMILIES, Family
from .weight_sets import Group

# What writers put before a network's own keys, in any number and order.
PREFIXES: tuple[str, ...] = (
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "core.",
    "denoiser.",
    "model_state_dict.",
    "shadow.",
    "ema_denoiser.",
    "net_ema.",
    "ema.",
    "model_ema.",
    "state_dict_ema.",
    "ema_model_state_dict.",
)

# Expected beside a network and ignored: trainers' own modules, and the other models in a ComfyUI checkpoint.
IGNORED: tuple[str, ...] = (
    "diffusion_trainer.",
    "_repa_projector.",
    "_dino_encoder.",
    "_dino_projector.",
    "pos_embed",
    "base_model.pos_embed",
    "model.pos_embed",
    "y_embedder.y_embedding",
    "text_encoders.",
    "conditioner.",
    "vae.",
    "first_stage_model.",
    "model_sampling.",
)

# Modules of a training beside the network's own, in one state dict: what its output is judged by.
LOSSES = frozenset(
    "critic discriminator disc netD D teacher lpips lpips_loss loss_fn perceptual_loss perceptual loss criterion "
    "dino dinov2 dino_encoder repa_encoder fid inception".split()
)

# Counters and markers that trainers keep among the weights, of at most one element, beside a network or a container.
COUNTERS: tuple[str, ...] = (
    "step",
    "steps",
    "global_step",
    "epoch",
    "iter",
    "iteration",
    "n_averaged",
    "num_updates",
    "num_batches_tracked",
    "initted",
    "decay",
)
_MARKER = re.compile(r"__\w+__")  # such as __x0__: what a network predicts

# Ends of names of what modules keep for themselves: TransformerEngine's state, ComfyUI's settings of attention.
OWN_STATES: tuple[str, ...] = ("._extra_state", ".comfy_attention.config")


@dataclass(frozen=True)
class Layout:
    """A way to write a network: what goes before its names, and whether pixel blocks are split as ComfyUI does."""

    prefix: str = ""
    split: bool = False


# What we write, by layout and family. "comfyui" is that of ComfyUI's own loaders or save nodes.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "canonical": dict.fromkeys(FAMILIES, Layout()),
    "comfyui": {
        **dict.fromkeys(FAMILIES, Layout("model.diffusion_model.")),  # as ModelSave does: ComfyUI has no loader for it
        "pixeldit_t2i": Layout("core.", split=True),  # as Load Diffusion Model takes it
    },
}


def is_counter(key: str, shape: Sequence[int], prefixes: Iterable[str]) -> bool:
    """Whether a tensor is a counter, a marker or a module's own state, and no weight.

    Args:
        prefixes: of the networks in the file; a counter is beside one, or beside a container of one.
    """
    if key.endswith(OWN_STATES):
        return True
    place, _, last = f".{key}".rpartition(".")
    if (last not in COUNTERS and not _MARKER.fullmatch(last)) or math.prod(shape) > 1:
        return False
    return any(f".{prefix}".startswith(f"{place}.") for prefix in prefixes)


def is_loss(key: str, prefix: str) -> bool:
    """Whether a tensor belongs to a module beside a network of this prefix that judges its output, such as a critic."""
    place = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return not key.startswith(prefix) and key.startswith(place) and key[len(place) :].partition(".")[0] in LOSSES


def find_stored(keys: Iterable[str], group: Group) -> dict[str, str]:
    """A file's names of a network's tensors, by canonical name; without those on the ignore list.

    Of two names for one tensor the alias counts, as where both are loaded one after the other.
    """
    stored: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: _is_alias(key, group.family)):
        if key.startswith(group.prefix) and not is_ignored(key[len(group.prefix) :]):
            stored[canonical(key[len(group.prefix) :], group.family)] = key
    return stored


def canonical(key: str, family: Family) -> str:
    """The canonical name of a tensor, whichever name it has."""
    for alias, name in family.aliases.items():
        if alias in key:
            return key.replace(alias, name)
    return key


def other_names(key: str) -> list[str]:
    """Other names that files of any family have for a tensor."""
    pairs = (pair for family in FAMILIES.values() for pair in family.aliases.items())
    return [key.replace(name, alias) for alias, name in pairs if name in key]


def _is_alias(key: str, family: Family) -> bool:
    return any(alias in key for alias in family.aliases)


def is_ignored(key: str) -> bool:
    """Whether a key is on the ignore list, as it is or after any of `PREFIXES`."""
    rests = {key}
    while rests:  # a set: there may be many ways to take a prefix apart, with few results
        if any(_is_entry(rest) for rest in rests):
            return True
        rests = {rest for rest in rests if rest.startswith(PREFIXES)}
        rests = {rest[len(piece) :] for rest in rests for piece in PREFIXES if rest.startswith(piece)}
    return False


def _is_entry(key: str) -> bool:
    return key in _IGNORED_NAMES or key.startswith(_IGNORED_MODULES)


_IGNORED_NAMES = frozenset(entry for entry in IGNORED if not entry.endswith("."))
_IGNORED_MODULES = tuple(entry for entry in IGNORED if entry.endswith("."))
