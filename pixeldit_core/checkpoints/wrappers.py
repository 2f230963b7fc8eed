"""Names without the pieces that wrappers of modules put into them: torch.compile, activation checkpointing, FSDP."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Attributes that hold the wrapped module; they may be anywhere in a name, once for every wrapper.
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module", "_fpw_module")

_BLOCK = re.compile(r"(_blocks\.\d+)\.(?:module|mod)(?=\.)")  # a block in DDP, or in torch 1's checkpointing
_FEWEST = 8  #   names without dots that are an average's, and no counters
_MOST_NAMES = 50_000
_DEEPEST = 6  #  modules around the network


def unwrap(name: str) -> str:
    """The name that a tensor has in the network itself."""
    if ".mod" in name:
        name = _BLOCK.sub(r"\1", name)
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
    return with_dots(stored)


def with_dots(stored: dict[str, str]) -> dict[str, str]:
    """LitEma keeps the average of `model.a.b.weight` as `model_ema.abweight`, others as `model_ema.a-b-weight`."""
    flat = {name: place for name in stored if "ema" in (place := name.rpartition(".")[0]).rpartition(".")[2].lower()}
    if len(flat) < _FEWEST or len(stored) > _MOST_NAMES:
        return stored
    dotted = _dotted(stored, {name.rpartition(".")[2] for name in flat})
    restored = {}
    for name, own in stored.items():
        inner = dotted.get(name.rpartition(".")[2]) if name in flat else None
        restored[f"{flat[name]}.{inner}" if inner else name] = own
    return restored if len(restored) == len(stored) else stored


def _dotted(names: Iterable[str], wanted: set[str]) -> dict[str, str]:
    """Those names with dots, or their ends after each of the first dots, that are `wanted` without."""
    dotted: dict[str, str] = {}
    for name in names:
        for _ in range(min(_DEEPEST, name.count("."))):
            for joint in ("", "_", "-"):
                if (flat := name.replace(".", joint)) in wanted:
                    dotted.setdefault(flat, name)
            name = name.partition(".")[2]
    return dotted
