"""Prompts through the host's own text encoder."""

from __future__ import annotations

from typing import Any

import comfy.sd
from comfyui_version import __version__ as HOST_VERSION

_FILE = "gemma_2_2b_it_elm (bf16 or fp8_scaled, in models/text_encoders)"
_PROMPT_TOKENS = 299  # of the 300 that the network sees, the first is the mark of the beginning


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a text, exactly as the host's CLIP Text Encode gives it.

    Raises:
        ValueError: a host or a text encoder that does not know PixelDiT's way to encode.
    """
    _check(clip)
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def unread(clip: Any, text: str) -> str | None:
    """A sentence about what of a text the network does not see; None if it sees all."""
    tokens = clip.tokenize(text)
    (name, (batch,)) = next(iter(tokens.items()))
    tokenizer = getattr(clip.tokenizer, name).tokenizer
    count = len(tokenizer(text)["input_ids"]) - 1  # without the mark of the beginning
    # the host cuts to a fixed length and pads what is shorter: padding at the end = nothing was cut
    if count <= _PROMPT_TOKENS or batch[-1][0] == 0:
        return None
    return f"it has {count} tokens, the model reads the first {_PROMPT_TOKENS}: the rest is not seen"


def _check(clip: Any) -> None:
    if not hasattr(comfy.sd.CLIPType, "PIXELDIT"):
        raise ValueError(
            f"PixelDiT's text encoder needs ComfyUI 0.23 or newer; this is {HOST_VERSION}. Update ComfyUI, then load "
            f"{_FILE} with Load CLIP, type pixeldit."
        )
    if clip is None:
        raise ValueError(f"there is no text encoder. Load {_FILE} with Load CLIP, type pixeldit.")
    kind = type(clip.tokenizer)
    if not kind.__module__.endswith(".pixeldit"):
        raise ValueError(
            f"this text encoder was loaded for another model ({kind.__name__}), and PixelDiT would not understand it. "
            f"Load {_FILE} with Load CLIP and set its type to pixeldit."
        )
