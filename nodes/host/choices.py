"""Values of a node's lists: also as numbers; those of another version of the pack are named as such."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def choose(name: str, value: Any, options: Iterable[str]) -> str:
    """The entry of a list that a value stands for.

    Some versions of ComfyUI do not compare values with the list themselves, and programs that send a prompt write
    1024 where the list has "1024".

    Args:
        name: of the input, for the message.

    Raises:
        ValueError: there is no such entry.
    """
    options = list(options)
    text = _text(value)
    if text in options:
        return text
    raise ValueError(
        f'{name} "{text}" is not known; there are {", ".join(options)}. Choose one of them. If the workflow was made '
        "with a newer version of ComfyUI-PixelDiT, update it."
    )


def explain(name: str, value: Any, options: Iterable[str]) -> str | None:
    """What `choose` raises, as text; None where it raises nothing."""
    try:
        choose(name, value, options)
    except ValueError as error:
        return str(error)
    return None


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
