"""PixelDiT's prompts through ComfyUI's Gemma-2."""

from __future__ import annotations

from typing import Any

import comfy.sd
from comfyui_version import __version__ as COMFYUI_VERSION

_PROMPT_TOKENS = 299  # of the 300 that the network reads, the first is the start token


def is_gemma(clip: Any) -> bool:
    """Whether a CLIP encodes as PixelDiT does: Gemma-2, loaded with the type pixeldit."""
    return type(clip.tokenizer).__module__.endswith(".pixeldit")


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a text, exactly as CLIP Text Encode gives it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def unread(clip: Any, text: str) -> str | None:
    """A note on the part of a text that the network ignores; None if it reads all of it."""
    tokens = clip.tokenize(text)
    (name, (batch,)) = next(iter(tokens.items()))
    tokenizer = getattr(clip.tokenizer, name).tokenizer
    count = len(tokenizer(text)["input_ids"]) - 1  # without the start token
    # ComfyUI cuts to a fixed length and pads what is shorter: padding at the end = nothing was cut
    if count <= _PROMPT_TOKENS or batch[-1][0] == 0:
        return None
    return f"it has {count} tokens, the model reads the first {_PROMPT_TOKENS}: the rest is ignored"


def advice() -> str:
    """How to load this text encoder."""
    load = (
        "load gemma_2_2b_it_elm (bf16 or fp8_scaled, in models/text_encoders) with Load CLIP and set its type to "
        "pixeldit."
    )
    if hasattr(comfy.sd.CLIPType, "PIXELDIT"):
        return f"For PixelDiT, {load}"
    return (
        f"PixelDiT's text encoder needs ComfyUI 0.23 or newer; this is {COMFYUI_VERSION}. Update ComfyUI, then {load}"
    )
