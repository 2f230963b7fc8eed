"""The state of a pickle that is followed: the bytes, the stack with its marks, the memo, and how much is left to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import TooLong
from .values import Places

MOST_OPERATIONS = 4_000_000  # about 40 for each tensor, 9 for each entry of a history
MALFORMED = "malformed pickle (stack underflow or unknown memo entry)"
EARLY = "its pickle ends early"

_LONGEST_NAME = 1_000


@dataclass
class Machine:
    """Follows the pickles of one file, one after the other."""

    data: bytes
    at: int = 0  # where the next pickle begins
    work: int = MOST_OPERATIONS  # what is left of it, for all pickles together
    places: Places = field(default_factory=Places)
    stack: list[Any] = field(default_factory=list[Any])  #        what is above the last mark
    below: list[list[Any]] = field(default_factory=list[list[Any]])  # the same of each mark before
    memo: dict[int, Any] = field(default_factory=dict[int, Any])
    globals: dict[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])

    def restart(self, data: bytes) -> None:
        """As the file begins, but for the work that is done."""
        vars(self).update(vars(Machine(data, work=self.work)))

    def clear(self) -> None:
        """As each pickle begins."""
        self.stack, self.below, self.memo = [], [], {}

    def outermost(self) -> Any:
        """The object that everything else was to become a part of."""
        return next((value for values in [*self.below, self.stack] for value in values[:1]), None)

    def spend(self, amount: int) -> None:
        """Counts work that grows with a value, since one operation could ask for it again and again."""
        self.work -= amount
        if self.work < 0:
            raise TooLong(f"its pickle needs more than {MOST_OPERATIONS:,} steps")

    def pop_mark(self) -> list[Any]:
        """What is above the last mark."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def end(self, at: int, size: int) -> int:
        """Where so many bytes end.

        Raises:
            ValueError: the pickle ends before.
        """
        if at + size > len(self.data):
            raise ValueError(EARLY)
        return at + size

    def line(self, at: int) -> tuple[str, int]:
        """A line of text and where the next begins."""
        end = self.data.find(b"\n", at, at + _LONGEST_NAME)
        if end < 0:
            raise ValueError(EARLY if len(self.data) - at < _LONGEST_NAME else MALFORMED)
        return self.data[at:end].decode("utf-8"), end + 1
