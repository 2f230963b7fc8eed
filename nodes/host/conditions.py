"""How a family's condition travels through ComfyUI: CONDITIONING -> what a batch carries -> the network's arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F
from torch import Tensor

CLASS = "pixeldit_class"  # of a CONDITIONING's dictionary: specific, so that other models ignore it
_MASK, _POOLED = "pixeldit_text_mask", "pixeldit_text_pooled"  # of a batch


@dataclass(frozen=True)
class Condition:
    """`carry`: (About, what the host knows of a conditioning) -> its entries for a batch, checked.

    `arguments`: (Family, the host's context, those entries) -> the network's arguments behind x and time.
    `remark`: (About, a CONDITIONING) -> what a person should know of it.
    """

    carry: Callable[[Any, dict], dict[str, Any]]
    arguments: Callable[[Any, Tensor | None, dict], tuple]
    remark: Callable[[Any, list], str | None]


def _carry_class(about: Any, given: dict) -> dict[str, Any]:
    label = given.get(CLASS)
    if label is None:
        raise ValueError(
            f"{about.source} is a class-conditional model and the conditioning has no class. "
            "Connect both outputs of PixelDiT Class Label; a text prompt does not fit it."
        )
    count = about.params.num_classes
    if int(label.min()) < 0 or int(label.max()) > count:
        raise ValueError(
            f"the conditioning asks for class {int(label.max())}; {about.source} has classes 0 to "
            f"{count - 1} ({count} is no class). Connect PixelDiT Class Label to this same model."
        )
    return {CLASS: comfy.conds.CONDRegular(label)}


class PaddedText(comfy.conds.CONDRegular):
    """States [B, T, D] or a mask [B, T] of a text: with others of another length in one batch, zeros go behind it."""

    def can_concat(self, other: Any) -> bool:
        mine, theirs = self.cond, other.cond
        return mine.ndim == theirs.ndim and mine.shape[2:] == theirs.shape[2:] and mine.device == theirs.device

    def concat(self, others: list) -> Tensor:
        texts = [self.cond, *(other.cond for other in others)]
        longest = max(text.shape[1] for text in texts)
        return torch.cat([F.pad(text, (0, 0) * (text.ndim - 2) + (0, longest - text.shape[1])) for text in texts])


def _carry_text(about: Any, given: dict) -> dict[str, Any]:
    text, family = given.get("cross_attn"), about.family
    if text is None or CLASS in given:
        has = "a class" if CLASS in given else "no text"
        raise ValueError(
            f"{about.source} paints from a text and the conditioning has {has}. Load {family.text_encoder}, and "
            "connect both outputs of PixelDiT Text Prompt."
        )
    width = about.params.txt_embed_dim
    if text.ndim != 3 or text.shape[-1] != width:
        raise ValueError(
            f"the conditioning is {text.shape[-1]} wide, {about.source} needs a text encoder of width {width}. "
            f"Load {family.text_encoder}, and encode the prompt with it."
        )
    if "mask" not in family.text_parts:
        # not CONDCrossAttn, which repeats the tokens of the shorter text: here their positions and number matter
        return {"c_crossattn": comfy.conds.CONDRegular(text)}
    mask = _mask(about, given.get("attention_mask"), text)
    pooled = given.get("pooled_output")
    if text.shape[1] > (most := about.params.txt_max_length):  # states do not depend on what comes behind them
        text, mask, pooled = text[:, :most], mask[:, :most], None
    if pooled is None or pooled.shape[-1] != width:  # of an encoder node that does not know this family
        pooled = text[torch.arange(len(text)), mask.sum(dim=1) - 1]
    return {
        "c_crossattn": PaddedText(text),
        _MASK: PaddedText(mask),
        _POOLED: comfy.conds.CONDRegular(pooled.to(text)),
    }


def _mask(about: Any, given: Tensor | None, text: Tensor) -> Tensor:
    """1 for each token that counts, int64 [B, T]."""
    if given is None:
        return torch.ones(text.shape[:2], dtype=torch.int64, device=text.device)
    if given.shape[-1] != text.shape[1]:
        raise ValueError(
            f"the text has {text.shape[1]} tokens and its mask {given.shape[-1]}: another node changed one of them. "
            f"Connect PixelDiT Text Prompt to {about.source} directly."
        )
    return (given.reshape(-1, given.shape[-1]) != 0).to(text.device, torch.int64).expand(len(text), -1)


def _text_arguments(family: Any, context: Tensor | None, entries: dict) -> tuple:
    parts = {"embeds": context, "mask": entries.get(_MASK), "pooled": entries.get(_POOLED)}
    return tuple(parts[name] for name in family.text_parts)


def _remark_text(about: Any, conditioning: list) -> str | None:
    longest, most = max((entry[0].shape[1] for entry in conditioning), default=0), about.params.txt_max_length
    return f"the text has {longest} tokens, the model reads the first {most}" if longest > most else None


def _no_remark(about: Any, conditioning: list) -> None:
    return None


CONDITIONS: dict[str, Condition] = {
    "class": Condition(_carry_class, lambda family, context, entries: (entries[CLASS],), _no_remark),
    "text": Condition(_carry_text, _text_arguments, _remark_text),
}
