"""Names without the pieces that wrappers of modules put into them: torch.compile, activation checkpointing, FSDP."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Attributes that hold the wrapped module; they may be anywhere in a name, once for every wrapper.
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")

_LIT_EMA = re.compile(r"[a-z_]*ema[a-z_]*\.[^.]+")
_FEWEST = 8  # names without dots that are an average's, and no counters


def unwrap(name: str) -> str:
    """The name that a tensor has in the network itself."""
    if not any(piece in name for piece in WRAPPERS):
        return name
    return ".".join(piece for piece in name.split(".") if piece not in WRAPPERS)


def plain_names(names: Iterable[str], source: str) -> dict[str, str]:
    """A file's own names of its tensors, by the names that the network has for them.

    Pieces of wrappers are taken out, and dots put back where LDM's LitEma took them out of an average's names.

    Raises:
        ValueError: two tensors of one name.
    """
    stored: dict[str, str] = {}
    for name in names:
        inner = unwrap(name)
        if inner in stored:
            raise ValueError(
                f"{source} has two tensors for {inner[:80]}: {stored[inner][:80]} and {name[:80]}. Save one alone."
            )
        stored[inner] = name
    return _with_dots(stored)


def _with_dots(stored: dict[str, str]) -> dict[str, str]:
    """LitEma keeps the average of `model.a.b.weight` as `model_ema.abweight`."""
    dotless = {name for name in stored if _LIT_EMA.fullmatch(name)}
    if len(dotless) < _FEWEST:
        return stored
    paths = (name.partition(".")[2] for name in stored)
    dotted = {path.replace(".", ""): path for path in paths if "." in path}
    restored = {}
    for name, own in stored.items():
        place, _, flat = name.partition(".")
        restored[f"{place}.{dotted[flat]}" if name in dotless and flat in dotted else name] = own
    return restored
