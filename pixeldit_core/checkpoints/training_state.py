"""Files of a training's state beside its weights: optimizers, schedulers, random states."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .weight_sets import find_groups

# Keys of the outermost dictionary that decide, and what the file is
_KINDS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(("state", "param_groups")), "the state of an optimizer"),
    (frozenset(("optimizer_state_dict", "ds_config")), "the state of an optimizer (DeepSpeed)"),
    (frozenset(("base_lrs", "last_epoch")), "the state of a learning rate scheduler"),
    (frozenset(("scale", "growth_factor", "backoff_factor")), "the state of a gradient scaler"),
    (frozenset(("random_state", "torch_manual_seed")), "the state of random generators"),
    (frozenset(("python", "numpy", "cpu")), "the state of random generators"),
)
_PARTS = re.compile(r"(?:\w*_)?(?:optim(?:izer)?s?|sched(?:uler)?s?|scaler|rng|random_states?)(?:_\w+)?")
_FILES = re.compile(
    r"(?:optimizer|optim|scheduler|lr_scheduler|ema_scheduler|scaler|gradscaler|sampler|dl_state_dict|rng_state"
    r"|training_args|trainer_state|custom_checkpoint|custom_states|random_states)(?:[_-]?\d+)*"
    r"\.(?:bin|pt|pth|ckpt|pkl|safetensors)"
)
# Where the weights are, beside a training's state
_WEIGHTS = (
    "diffusion_pytorch_model.safetensors", "model.safetensors", "pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth",
)  # fmt: skip


def is_training_file(name: str) -> bool:
    """Whether a file keeps the state of a training, by its name as trainers write it."""
    return _FILES.fullmatch(name) is not None


def explain_training_state(keys: Iterable[object], path: Path, empty: bool = False) -> str | None:
    """What a pickled file of a training's state is, and where its weights are, as whole sentences with its name.

    Args:
        keys: of its outermost dictionary.
        empty: nothing of a network was found in it, so that one key with an optimizer's name is enough.

    Returns:
        None where it may hold a network.
    """
    names = {key for key in keys if isinstance(key, str)}
    kind = next((kind for required, kind in _KINDS if required <= names), None)
    if kind is None and empty and any(_PARTS.fullmatch(name) for name in names):
        kind = "the state of a training (optimizer, scheduler), without the network's weights"
    return None if kind is None else f"{path.name} is {kind}, not of a network. {_advice(path)}"


def check_training_state(tensors: Iterable[str], path: Path) -> None:
    """Refuse a training's state by the names of its tensors, or by its own name where it has none.

    Raises:
        ValueError: an optimizer's state, or another file of a training without weights.
    """
    kind = None
    names = list(tensors)
    if not names and is_training_file(path.name):
        kind = "the state of a training (optimizer, scheduler or random numbers, by its name)"
    elif names and all(name.startswith("state.") for name in names) and not find_groups(names):
        kind = "the state of an optimizer"
    if kind:
        raise ValueError(f"{path.name} is {kind}, not of a network. {_advice(path)}")


def _advice(path: Path) -> str:
    beside = next((name for name in _WEIGHTS if name != path.name and (path.parent / name).is_file()), None)
    if beside:
        return f"The weights are in {beside} beside it: choose that file."
    return "Its weights are in a file beside it, such as model.safetensors or pytorch_model.bin: choose that one."
