"""Prompts through the host's own text encoders: which of them a CLIP holds decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import gemma, qwen


@dataclass(frozen=True)
class TextEncoder:
    fits: Callable[[Any], bool]
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
        ValueError: no text encoder, or none that a model of this pack understands.
    """
    return _encoder(clip).encode(clip, text)


def unread(clip: Any, text: str) -> str | None:
    """A sentence about what of a text the network does not see; None if it sees all."""
    return _encoder(clip).unread(clip, text)


def _encoder(clip: Any) -> TextEncoder:
    found = "there is no text encoder"
    if clip is not None:
        for encoder in ENCODERS:
            if encoder.fits(clip):
                return encoder
        found = f"this text encoder was loaded for another model ({type(clip.tokenizer).__name__})"
    raise ValueError(" ".join([f"{found}.", *(encoder.advice() for encoder in ENCODERS)]))
