"""PixelDiT's prompts through the host's own Gemma-2."""

from __future__ import annotations

from typing import Any

import comfy.sd
from comfyui_version import __version__ as HOST_VERSION

_PROMPT_TOKENS = 299  # of the 300 that the network sees, the first is the mark of the beginning


def is_gemma(clip: Any) -> bool:
    """Whether a CLIP encodes as PixelDiT does: Gemma-2, loaded with the type pixeldit."""
    return type(clip.tokenizer).__module__.endswith(".pixeldit")


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a text, exactly as the host's CLIP Text Encode gives it."""
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


def advice() -> str:
    """How a person gets this text encoder."""
    load = (
        "load gemma_2_2b_it_elm (bf16 or fp8_scaled, in models/text_encoders) with Load CLIP and set its type to "
        "pixeldit."
    )
    if hasattr(comfy.sd.CLIPType, "PIXELDIT"):
        return f"For PixelDiT, {load}"
    return f"PixelDiT's text encoder needs ComfyUI 0.23 or newer; this is {HOST_VERSION}. Update ComfyUI, then {load}"
