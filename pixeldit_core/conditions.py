"""Conditions of a model - classes, texts, no condition - and how they share a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from .labels import find_class
from .model import Condition, Model


def class_condition(model: Model, classes: int | str | Iterable[int | str | Tensor] | Tensor) -> Tensor:
    """Classes as numbers, names or "207: golden retriever" -> int64 [n]. The index of the null class is allowed.

    Raises:
        ValueError: a family without classes; a class out of range, unknown or ambiguous.
    """
    _require_classes(model)
    entries = [classes] if isinstance(classes, int | str) else list(classes)
    plain = [int(entry) if isinstance(entry, Tensor) else entry for entry in entries]
    count = model.params.num_classes
    return torch.tensor([find_class(entry, count, model.class_names) for entry in plain], dtype=torch.int64)


def null_condition(model: Model, n: int) -> Tensor:
    """The null class, n times: int64 [n], the last row of the table.

    Raises:
        ValueError: a family of text: encode the negative prompt instead.
    """
    _require_classes(model)
    assert model.family.null is not None, f"{model.family.name} has classes and no null class"
    return model.family.null(model.params, n)


def text_condition(model: Model, embeds: Tensor, mask: Tensor | None = None, pooled: Tensor | None = None) -> Condition:
    """The states of a text encoder, as the network takes them: what its family ignores is dropped.

    Args:
        embeds: [B, T, C] or [B, 1, T, C].
        mask: [B, T], 1 = a token of the text, 0 = padding, None = no padding; dropped for the official text-to-image
            network, which attends to padding.
        pooled: [B, C], one vector for the whole text, or None.

    Raises:
        ValueError: a family of classes; states of another width; more tokens than the model has positions for; a mask
            or pooled vector that does not belong to the states.
    """
    if model.family.condition != "text":
        raise ValueError(f"{model.family.title} is conditioned on classes, not on text: use class_condition.")
    if embeds.ndim == 4 and embeds.shape[1] == 1:
        embeds = embeds[:, 0]
    width = model.params.txt_embed_dim
    if embeds.ndim != 3 or embeds.shape[-1] != width:
        raise ValueError(
            f"the text has shape {list(embeds.shape)}; expected [B, T, {width}]: the states of the text encoder that "
            "the model was trained with."
        )
    if mask is None and "mask" in model.family.text_parts:
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    parts = {"embeds": embeds, "mask": mask, "pooled": pooled}
    taken = {name: parts[name] for name in model.family.text_parts}
    _check_text(embeds, taken.get("mask"), taken.get("pooled"), model.family.max_tokens(model.params))
    return embeds if len(taken) == 1 else tuple(taken.values())


def _check_text(embeds: Tensor, mask: Tensor | None, pooled: Tensor | None, most: int | None) -> None:
    """Raises ValueError unless mask [1 or B, T] and pooled [1 or B, C] belong to embeds [B, T, C], and T <= most."""
    rows, length, width = embeds.shape
    if most is not None and length > most:
        raise ValueError(f"the text has {length} tokens; the model has positions for {most}: cut it.")
    if mask is not None and mask.shape not in ((rows, length), (1, length)):
        raise ValueError(f"the mask has shape {list(mask.shape)}; the text needs [{rows}, {length}].")
    if pooled is not None and pooled.shape not in ((rows, width), (1, width)):
        raise ValueError(f"the pooled text has shape {list(pooled.shape)}; expected [{rows}, {width}].")


def _require_classes(model: Model) -> None:
    if model.family.condition != "class":
        raise ValueError(
            f"{model.family.title} is conditioned on text, not on classes: encode a prompt, "
            'and "" or a negative prompt for no condition.'
        )


def num_rows(condition: Condition) -> int:
    """Images that a condition is for."""
    if isinstance(condition, tuple):
        assert condition[0] is not None, "the first part of a condition is always there"
        return len(condition[0])
    return len(condition)


def expand_rows(condition: Condition, count: int) -> Condition:
    """One row for all images becomes one for each.

    Raises:
        ValueError: another number of rows.
    """
    if isinstance(condition, tuple):
        return tuple(None if part is None else _expand(part, count) for part in condition)
    return _expand(condition, count)


def _expand(part: Tensor, count: int) -> Tensor:
    if len(part) not in (1, count):
        raise ValueError(f"there are {len(part)} conditions for {count} images; give one for each, or one for all.")
    return part.expand(count, *part.shape[1:])


def fit_together(first: Condition, second: Condition) -> bool:
    """Whether two conditions fit into one batch: alike but for their number of rows, or texts that can be padded."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape[1:] == second.shape[1:]
    if any((a is None) != (b is None) for a, b in zip(first, second, strict=True)):
        return False
    pairs = zip(*_padded(first, second), strict=True)
    return all(a is None or b is None or a.shape[1:] == b.shape[1:] for a, b in pairs)


def concatenate(first: Condition, second: Condition) -> Condition:
    """Rows of two conditions that fit together, one after the other; texts are padded where a mask covers it.

    The result is on the second one's device: a family's own null condition is on the CPU, a user's may be on a GPU.
    """
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        assert isinstance(first, Tensor) and isinstance(second, Tensor)
        return torch.cat([first.to(second.device), second])
    pairs = zip(*_padded(first, second), strict=True)
    return tuple(None if a is None or b is None else torch.cat([a.to(b.device), b]) for a, b in pairs)


Parts = tuple[Tensor | None, ...]


def _padded(first: Parts, second: Parts) -> tuple[Parts, Parts]:
    """Two texts (states [B, T, D], mask [B, T], ...) at the longer one's length; as they are if there is no mask.

    Other conditions, such as (classes [B], skip [B]), have nothing to pad.
    """
    if len(first) < 2 or first[0] is None or second[0] is None or first[1] is None or first[0].ndim < 3:
        return first, second
    length = max(first[0].shape[1], second[0].shape[1])
    return _pad_text(first, length), _pad_text(second, length)


def _pad_text(text: Parts, length: int) -> Parts:
    """A text (states [B, T, D], mask [B, T], ...) followed by padding that its mask excludes."""
    states, mask, *others = text
    assert states is not None and mask is not None
    more = length - states.shape[1]
    if not more:
        return text
    return F.pad(states, (0, 0, 0, more)), F.pad(mask, (0, more)), *others
