"""Words for messages."""

from __future__ import annotations

from collections.abc import Iterable


def shorten_list(entries: Iterable[str], shown: int, separator: str = ", ") -> str:
    """The first few entries, and how many more there are: "a, b and 7 more"."""
    entries = list(entries)
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return separator.join(entries[:shown]) + more
