"""Prompts through ComfyUI's text encoders, chosen by what a CLIP holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import gemma, qwen


@dataclass(frozen=True)
class TextEncoder:
    matches: Callable[[Any], bool]
    encode: Callable[[Any, str], list]
    unread: Callable[[Any, str], str | None]
    advice: Callable[[], str]


ENCODERS = (
    TextEncoder(gemma.is_gemma, gemma.encode, gemma.unread, gemma.advice),
    TextEncoder(qwen.is_qwen, qwen.encode, qwen.unread, qwen.advice),
)


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a text.

    Raises:
        ValueError: no text encoder, or one that no model of this pack was trained with.
    """
    return _encoder(clip).encode(clip, text)


def unread(clip: Any, text: str) -> str | None:
    """A note on the part of a text that the network ignores; None if it reads all of it."""
    return _encoder(clip).unread(clip, text)


def _encoder(clip: Any) -> TextEncoder:
    problem = "there is no text encoder"
    if clip is not None:
        for encoder in ENCODERS:
            if encoder.matches(clip):
                return encoder
        problem = f"this text encoder was loaded for another model ({type(clip.tokenizer).__name__})"
    raise ValueError(" ".join([f"{problem}.", *(encoder.advice() for encoder in ENCODERS)]))
