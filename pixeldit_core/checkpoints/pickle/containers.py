"""The dictionaries of a pickled file: which hold tensors, and what else is worth reading."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...text import shorten_list
from ..weight_sets import AVERAGE, MOST_NETWORKS, Group, find_groups, incomplete_averages, words_of
from ..wrappers import unwrap, with_dots

log = logging.getLogger(__name__)

# Where the tensors are, in a file without a network of ours (a LoRA, a model of another kind), best first.
CONTAINERS = ("state_dict", "model", "ema", "model_ema", "model_state_dict")
_BARE = "state_dict."  # of these keys no prefix stays

_DEEPEST = 16  #         dictionaries within dictionaries
_MOST_ENTRIES = 500_000  # of all dictionaries together: one that is shared counts every time
_MOST_VALUES = 10_000  #   of a configuration
_LONGEST_TEXT = 1_000
_FEWEST = 8  #           tensors in a list that may be an average without names
_LONGEST_LIST = 64  #    containers in a list, such as averages of several decays
_OWN_STATE = "_extra_state"  # of a module, as a dictionary; as a tensor it is stepped over with the others


def flatten(stored: dict[Any, Any], name: str) -> dict[str, Tensor]:
    """Tensors by name: keys of nested dictionaries joined by dots, those of `state_dict` as they are.

    Where a file has networks of ours, only the dictionaries with them are about weights, and nothing beside them: an
    optimizer may keep tensors under the names of the weights. A list of tensors in place of an average gets the names
    of the raw weights, if it has their shapes in their order.

    Raises:
        ValueError: two tensors of one name, too many entries, too deep.
    """
    tree = Tree(name)
    tree.read(stored)
    plain = tree.plain_names()
    groups = find_groups(plain.values())
    if tree.lists and not tree.tensors:
        raise ValueError(
            f"{name} holds its tensors as a list without names, as averages (EMA) are kept beside a training, so it is "
            "not clear where each belongs. Choose the file with the model, or save the average with its names there."
        )
    if not groups:
        known = tuple(f"{key}." for key in CONTAINERS if isinstance(dict.get(stored, key), dict))
        chosen = {key: value for key, value in tree.tensors.items() if not known or key.startswith(known)}
    elif len(groups) > MOST_NETWORKS:
        chosen = tree.tensors
    else:
        places = tuple({tree.container_of(group) for group in groups})
        chosen = {key: value for key, value in tree.tensors.items() if plain[key].startswith(places)}
        chosen |= tree.named_lists(groups)
        parts = incomplete_averages(groups, plain.values())
        if parts := [place for place in parts if not place.startswith(places)]:
            log.warning("%s: only a part of an average is in it (%s): not read.", name, shorten_list(parts, 3))
    return _without_bare(chosen, name)


class Tree:
    """All tensors of nested dictionaries."""

    def __init__(self, name: str):
        self.tensors: dict[str, Tensor] = {}
        self.lists: dict[str, list[Tensor]] = {}
        self._places = {""}
        self._name, self._budget = name, iter(range(_MOST_ENTRIES))

    def read(self, content: dict[Any, Any], prefix: str = "", depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"{self._name} nests dictionaries more than {_DEEPEST} deep. Choose another file.")
        for key, value in dict.items(content):  # not content.items(): a pickle may give it an attribute of that name
            if next(self._budget, None) is None:
                raise self._too_many()
            if type(key) not in (str, float) and not (type(key) is int and _is_average(prefix)):
                continue  # whole numbers: of an optimizer
            self._take(f"{prefix}{key}", value, depth)

    def _take(self, path: str, value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            self._add(path, value)
        elif isinstance(value, dict):
            if path.rpartition(".")[2] != _OWN_STATE:
                self._places.add(unwrap(f"{path}."))
                self.read(value, f"{path}.", depth + 1)
        elif type(value) in (list, tuple) and value:
            self._take_list(f"{path}.", value, depth + 1)

    def _take_list(self, path: str, values: list[Any] | tuple[Any, ...], depth: int) -> None:
        """Tensors without names; or containers, such as the averages of several decays, each maybe after its name."""
        if len(values) >= _FEWEST and isinstance(values[0], Tensor):
            self.lists[path] = [part for part in values if isinstance(part, Tensor)]
        elif len(values) <= _LONGEST_LIST and depth <= _DEEPEST and any(map(_is_container, values[:2])):
            named = len(values) == 2 and type(values[0]) in (str, float, int)
            content = {values[0]: values[1]} if named else dict(enumerate(values))
            self._places.add(unwrap(path))
            for key, value in content.items():
                if next(self._budget, None) is None:
                    raise self._too_many()
                if _is_container(value):
                    self._take(f"{path}{key}", value, depth)

    def _too_many(self) -> ValueError:
        return ValueError(f"{self._name} holds more than {_MOST_ENTRIES:,} entries. Choose another file.")

    def plain_names(self) -> dict[str, str]:
        """The names that the network has for its tensors, by those here."""
        names = {key: unwrap(key) for key in self.tensors}
        dotted = {own: name for name, own in with_dots({name: name for name in names.values()}).items()}
        return {key: dotted[name] for key, name in names.items()}

    def _add(self, path: str, value: Tensor) -> None:
        if path in self.tensors:
            raise ValueError(f"{self._name} has two tensors of the name {path[:80]}. Save one of them alone.")
        self.tensors[path] = value

    def container_of(self, group: Group) -> str:
        """The innermost dictionary that has a network: the longest one that its prefix starts with."""
        return max((place for place in self._places if group.prefix.startswith(place)), key=len)

    def named_lists(self, groups: list[Group]) -> dict[str, Tensor]:
        """Averages that a file keeps as lists, without names, under those of the raw weights."""
        raw = next((group for group in groups if group.role == "raw"), None)
        if raw is None or not self.lists:
            return {}
        named: dict[str, Tensor] = {}
        own = {unwrap(key)[len(raw.prefix) :]: value for key, value in self.tensors.items()
               if unwrap(key).startswith(raw.prefix)}  # fmt: skip
        for path, tensors in self.lists.items():
            if len(named) > MOST_NETWORKS * len(self.tensors):
                break
            if not _is_average(path):
                continue
            if [value.shape for value in own.values()] == [value.shape for value in tensors]:
                named |= {path + key: value for key, value in zip(own, tensors, strict=True)}
            else:
                log.warning(
                    "%s: its %s is a list of %d tensors without names, which are not those of the network: not read.",
                    self._name, path[:-1], len(tensors),
                )  # fmt: skip
        return named


def _is_average(path: str) -> bool:
    return bool(AVERAGE & set(words_of(path)))


def _is_container(value: Any) -> bool:
    return isinstance(value, dict) or type(value) in (list, tuple)


def _without_bare(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Names without that of the outermost `state_dict`."""
    bare = {key.removeprefix(_BARE): value for key, value in tensors.items()}
    if len(bare) < len(tensors):
        twice = next(inner for key in tensors if (inner := key.removeprefix(_BARE)) != key and inner in tensors)
        raise ValueError(f"{name} has two tensors of the name {twice[:80]}. Save one of them alone.")
    return bare


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
