"""The dictionaries of a pickled file: which hold tensors, and what else is worth reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch import Tensor

# Dictionaries of tensors inside of a pickled file. The first gives its keys as they are; the others keep their name as
# a prefix. Everything else in the file is not about weights.
CONTAINERS = (
    "state_dict",
    "state_dict_ema",
    "model",
    "ema",
    "model_ema",
    "model_state_dict",
    "ema_model_state_dict",
)

_DEEPEST = 16  #         dictionaries within dictionaries
_MOST_ENTRIES = 500_000  # of all dictionaries together: one that is shared counts every time
_MOST_VALUES = 10_000  #   of a configuration
_LONGEST_TEXT = 1_000


def flatten(stored: dict[Any, Any], name: str) -> dict[str, Tensor]:
    """Tensors by name. Known containers are opened; without any, the dictionary itself is the state dict."""
    containers = {key: value for key in CONTAINERS if isinstance(value := dict.get(stored, key), dict)}
    tensors: dict[str, Tensor] = {}
    budget = iter(range(_MOST_ENTRIES))
    for container, content in containers.items() or [("state_dict", stored)]:
        for key, value in _leaves(content, "" if container == "state_dict" else f"{container}.", name, budget):
            if key in tensors:
                raise ValueError(f"{name} has two tensors of the name {key[:80]}. Get it again, best as .safetensors.")
            tensors[key] = value
    return tensors


def _leaves(
    content: dict[Any, Any], prefix: str, name: str, budget: Iterator[int], depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEEPEST:
        raise ValueError(f"{name} nests dictionaries more than {_DEEPEST} deep. Choose another file.")
    for key, value in dict.items(content):  # not content.items(): a pickle may give it an attribute of that name
        if next(budget, None) is None:
            raise ValueError(f"{name} holds more than {_MOST_ENTRIES:,} entries. Choose another file.")
        if not isinstance(key, str):
            continue  # of an optimizer: the weights of a network have names
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", name, budget, depth + 1)


def plain_values(stored: dict[Any, Any]) -> dict[str, str]:
    """Strings and numbers of the outermost dictionary, and its training configuration as JSON."""
    values = {
        key: str(value) for key, value in dict.items(stored) if type(key) is str and type(value) in (str, int, float)
    }
    config = dict.get(stored, "config")
    if isinstance(config, dict):
        values["config"] = json.dumps(_plain(config, iter(range(_MOST_VALUES))))
    return values


def _plain(value: Any, budget: Iterator[int], depth: int = 0) -> Any:
    """A value as JSON can have it; None for anything else, and beyond the budget."""
    if next(budget, None) is None or depth > _DEEPEST:
        return None
    if value is None or type(value) in (bool, int, float):
        return value
    if type(value) is str:
        return value[:_LONGEST_TEXT]
    if type(value) in (list, tuple):
        return [_plain(part, budget, depth + 1) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part, budget, depth + 1) for key, part in dict.items(value) if type(key) is str}
    return None
