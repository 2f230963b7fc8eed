"""Why a pickled file is not read. Damage is any other error: no message speaks of it where there is none."""

from __future__ import annotations


class ForeignClass(ValueError):
    """It wants a class or function (the only argument: its name) that weights and plain values do not need."""


class NotPlain(ValueError):
    """It is whole, but has something in it that is not read (the only argument: "has ...", "is ...")."""


class TooLong(ValueError):
    """It is whole, but holds more values than are followed (the only argument: what is too many)."""
