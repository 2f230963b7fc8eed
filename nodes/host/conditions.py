"""How a family's condition passes through ComfyUI: CONDITIONING -> entries of a batch -> the network's arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pixeldit_core.families import Family
from ...pixeldit_core.spec import ModelSpec

_ROUNDING = 1e-5  # of weights that shall sum to 1
CLASS = "pixeldit_class"  # key in a CONDITIONING's dictionary: specific, so that other models ignore it
_SKIP = "pixeldit_skip"  # beside it: rows that are not grounded, where that does not follow from the class
_MASK, _POOLED = "pixeldit_text_mask", "pixeldit_text_pooled"  # keys of a batch


@dataclass(frozen=True)
class Condition:
    """`carry`: (spec, what `extra_conds` gets of a CONDITIONING, is it training) -> its entries for a batch, checked.

    `arguments`: (family, params, `context` as ComfyUI calls the network, those entries) -> the network's arguments
    after x and time.
    `remark`: (spec, a CONDITIONING) -> a note for the user; None if there is nothing to note.
    """

    carry: Callable[[ModelSpec, dict[str, Any], bool], dict[str, Any]]
    arguments: Callable[[Family, Any, Tensor | None, dict[str, Any]], tuple[Tensor | None, ...]]
    remark: Callable[[ModelSpec, list], str | None]


def class_conditioning(labels: Sequence[int], num_classes: int) -> list:
    """CONDITIONING of classes, one row for each: weights [rows, 1, num_classes + 1] over the rows of the class table.

    So ComfyUI's own nodes for conditionings act: Zero Out gives no class, Average a mix of two. The last row of the
    table is the null class; what weights lack to a sum of 1 counts as its weight.
    """
    rows = F.one_hot(torch.tensor(list(labels), dtype=torch.int64), num_classes + 1).float()
    return [[rows[:, None], {CLASS: num_classes}]]


def unknown_conditioning(spec: ModelSpec) -> list | None:
    """CONDITIONING of an image of any class; None for a family of text."""
    family, count = spec.family, 1
    if family.null is None:
        return None
    if family.unknown is None:
        return class_conditioning(family.null(spec.params, count).tolist(), spec.params.num_classes)
    labels, skip = family.unknown(spec.params, count)
    ((rows, entries),) = class_conditioning(labels.tolist(), spec.params.num_classes)
    return [[rows, {**entries, _SKIP: skip.long()}]]


def num_rows(conditioning: list) -> int:
    """How many images a CONDITIONING of classes is for; 0 for any other."""
    return max((len(entry[0]) for entry in conditioning if CLASS in entry[1]), default=0)


def _carry_class(spec: ModelSpec, given: dict[str, Any], training: bool) -> dict[str, Any]:
    weights, count = given.get("cross_attn"), spec.params.num_classes
    if CLASS not in given or weights is None:
        raise ValueError(
            f"{spec.source} is a class-conditional model, but the conditioning contains no class label. "
            "Connect both outputs of PixelDiT Class Label; a text prompt does not fit it."
        )
    if weights.shape[1] != 1:
        raise ValueError(
            f"this conditioning joins {weights.shape[1]} classes by Conditioning (Concat), which is for texts. For a "
            "mix of classes use Conditioning (Average); for several images, a list in PixelDiT Class Label."
        )
    if weights.shape[-1] != count + 1:
        raise ValueError(
            f"the conditioning is for a model with {weights.shape[-1] - 1} classes; {spec.source} has {count}. Connect "
            "PixelDiT Class Label to this same model."
        )
    entries: dict[str, Any] = {CLASS: ClassLabels(_labels_or_weights(weights[:, 0]), training)}
    return entries | ({_SKIP: comfy.conds.CONDRegular(given[_SKIP])} if _SKIP in given else {})


def _labels_or_weights(weights: Tensor) -> Tensor:
    """Classes, int64 [n], where each row is a single one or none at all; else the weights [n, num_classes + 1].

    What a row lacks to a sum of 1 goes to the null class, so that less and less of a class ends at none.
    """
    weights = weights.float()
    rest = 1 - weights.sum(dim=1, keepdim=True)
    null = weights[:, -1:] + torch.where(rest.abs() > _ROUNDING, rest, 0)
    weights = torch.cat([weights[:, :-1], null], dim=1)  # a copy: other nodes have the CONDITIONING, too
    is_single = ((weights == 1).sum(dim=1) == 1) & ((weights != 0).sum(dim=1) == 1)
    return weights.argmax(dim=1) if bool(is_single.all()) else weights


class ClassLabels(comfy.conds.CONDRegular):
    """Classes, int64 [n], or weights of classes [n, num_classes + 1]; one for each image of a batch, or one for all."""

    def __init__(self, cond: Tensor, training: bool = False) -> None:
        super().__init__(cond)
        self.training = training

    def process_cond(self, batch_size: int, **options: Any) -> comfy.conds.CONDRegular:
        count = len(self.cond)
        # While it samples, ComfyUI computes no gradients. Its training takes any images of the data set for a batch.
        if torch.is_grad_enabled() and len(self.cond.unique(dim=0)) > 1 and (count > batch_size or self.training):
            raise ValueError(
                f"this conditioning has {count} classes, and Train LoRA cannot tell which image has which. "
                "Connect one class for all images; or one PixelDiT Class Label per image, in the order of the images, "
                "joined by Conditioning (Combine)."
            )
        if count > batch_size and not torch.is_grad_enabled():
            raise ValueError(
                f"the conditioning has {count} classes, for {count} images, and the latent has {batch_size}. Set the "
                f"batch_size of the latent to {count}, or connect one class."
            )
        return super().process_cond(batch_size, **options)

    def can_concat(self, other: Any) -> bool:
        return self.cond.device == other.cond.device

    def concat(self, others: list) -> Tensor:
        parts = [self.cond, *(other.cond for other in others)]
        width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
        return torch.cat([F.one_hot(part, width).float() if width and part.ndim == 1 else part for part in parts])


class PaddedText(comfy.conds.CONDRegular):
    """States [B, T, D] or a mask [B, T] of a text: zero-padded at the end to the longest text of a batch."""

    def can_concat(self, other: Any) -> bool:
        mine, theirs = self.cond, other.cond
        return mine.ndim == theirs.ndim and mine.shape[2:] == theirs.shape[2:] and mine.device == theirs.device

    def concat(self, others: list) -> Tensor:
        texts = [self.cond, *(other.cond for other in others)]
        longest = max(text.shape[1] for text in texts)
        return torch.cat([F.pad(text, (0, 0) * (text.ndim - 2) + (0, longest - text.shape[1])) for text in texts])


def _carry_text(spec: ModelSpec, given: dict[str, Any], training: bool) -> dict[str, Any]:
    text, family = given.get("cross_attn"), spec.family
    if text is None or CLASS in given:
        content = "a class label" if CLASS in given else "no text"
        raise ValueError(
            f"{spec.source} is text-conditional, but the conditioning contains {content}. Load {family.text_encoder}, "
            "and connect both outputs of PixelDiT Text Prompt."
        )
    width = spec.params.txt_embed_dim
    if text.ndim != 3 or text.shape[-1] != width:
        raise ValueError(
            f"the conditioning is {text.shape[-1]} wide, {spec.source} needs a text encoder of width {width}. "
            f"Load {family.text_encoder}, and encode the prompt with it."
        )
    if "mask" not in family.text_parts:
        # not CONDCrossAttn, which repeats the tokens of the shorter text: here their positions and number matter
        return {"c_crossattn": comfy.conds.CONDRegular(text)}
    mask = _mask(spec, given.get("attention_mask"), text)
    pooled = given.get("pooled_output")
    if text.shape[1] > (most := spec.params.txt_max_length):  # states do not depend on later tokens
        text, mask, pooled = text[:, :most], mask[:, :most], None
    if pooled is None or pooled.shape[-1] != width:  # from an encoder node made for other models
        pooled = text[torch.arange(len(text)), mask.sum(dim=1) - 1]
    return {
        "c_crossattn": PaddedText(text),
        _MASK: PaddedText(mask),
        _POOLED: comfy.conds.CONDRegular(pooled.to(text)),
    }


def _mask(spec: ModelSpec, given: Tensor | None, text: Tensor) -> Tensor:
    """int64 [B, T], 1 = token, 0 = padding."""
    if given is None:
        return torch.ones(text.shape[:2], dtype=torch.int64, device=text.device)
    if given.shape[-1] != text.shape[1]:
        raise ValueError(
            f"the text has {text.shape[1]} tokens and its mask {given.shape[-1]}: another node changed one of them. "
            f"Connect PixelDiT Text Prompt to {spec.source} directly."
        )
    return (given.reshape(-1, given.shape[-1]) != 0).to(text.device, torch.int64).expand(len(text), -1)


def _class_arguments(
    family: Family, params: Any, context: Tensor | None, entries: dict[str, Any]
) -> tuple[Tensor | None, ...]:
    arguments = family.class_arguments(params, entries[CLASS])
    return (*arguments, entries[_SKIP] != 0) if _SKIP in entries and len(arguments) == 1 else arguments


def _text_arguments(
    family: Family, params: Any, context: Tensor | None, entries: dict[str, Any]
) -> tuple[Tensor | None, ...]:
    parts = {"embeds": context, "mask": entries.get(_MASK), "pooled": entries.get(_POOLED)}
    return tuple(parts[name] for name in family.text_parts)


def _remark_text(spec: ModelSpec, conditioning: list) -> str | None:
    longest, most = max((entry[0].shape[1] for entry in conditioning), default=0), spec.params.txt_max_length
    return f"the text has {longest} tokens, the model reads the first {most}" if longest > most else None


def _no_remark(spec: ModelSpec, conditioning: list) -> None:
    return None


CONDITIONS: dict[str, Condition] = {
    "class": Condition(_carry_class, _class_arguments, _no_remark),
    "text": Condition(_carry_text, _text_arguments, _remark_text),
}
