"""Words for messages."""

from __future__ import annotations

from collections.abc import Iterable


def shorten_list(entries: Iterable[str], shown: int, separator: str = ", ") -> str:
    """The first few entries, and how many more there are: "a, b and 7 more"."""
    entries = list(entries)
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return separator.join(entries[:shown]) + more


def printable(text: str) -> str:
    """The text with a question mark for each letter that a terminal might act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
