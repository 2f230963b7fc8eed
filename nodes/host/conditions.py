"""How a family's condition travels through ComfyUI: CONDITIONING -> what a batch carries -> the network's arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
from torch import Tensor

CLASS = "pixeldit_class"  # of a CONDITIONING's dictionary: specific, so that other models ignore it


@dataclass(frozen=True)
class Condition:
    """`carry`: (About, what the host knows of a conditioning) -> its entries for a batch, checked.

    `arguments`: (the host's context, those entries) -> the network's arguments behind x and time.
    `remark`: (About, a CONDITIONING) -> what a person should know of it.
    """

    carry: Callable[[Any, dict], dict[str, Any]]
    arguments: Callable[[Tensor | None, dict], tuple]
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


def _carry_text(about: Any, given: dict) -> dict[str, Any]:
    text = given.get("cross_attn")
    if text is None or CLASS in given:
        has = "a class" if CLASS in given else "no text"
        raise ValueError(
            f"{about.source} paints from a text and the conditioning has {has}. Connect both outputs of PixelDiT Text "
            "Prompt, or CLIP Text Encode with a text encoder of type pixeldit."
        )
    width = about.params.txt_embed_dim
    if text.ndim != 3 or text.shape[-1] != width:
        raise ValueError(
            f"the conditioning is {text.shape[-1]} wide, {about.source} needs a text encoder of width {width}. "
            "Load gemma_2_2b_it_elm with Load CLIP, type pixeldit, and encode the prompt with it."
        )
    # not CONDCrossAttn, which repeats the tokens of the shorter text: here their positions and number matter
    return {"c_crossattn": comfy.conds.CONDRegular(text)}


def _remark_text(about: Any, conditioning: list) -> str | None:
    longest, most = max((entry[0].shape[1] for entry in conditioning), default=0), about.params.txt_max_length
    return f"the text has {longest} tokens, the model reads the first {most}" if longest > most else None


CONDITIONS: dict[str, Condition] = {
    "class": Condition(_carry_class, lambda context, entries: (entries[CLASS],), lambda about, conditioning: None),
    "text": Condition(_carry_text, lambda context, entries: (context,), _remark_text),
}
