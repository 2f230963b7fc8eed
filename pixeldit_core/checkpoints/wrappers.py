"""Names without the pieces that wrappers of modules put into them: torch.compile, activation checkpointing, FSDP."""

from __future__ import annotations

from collections.abc import Iterable

# Attributes that hold the wrapped module; they may be anywhere in a name, once for every wrapper.
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")


def unwrap(name: str) -> str:
    """The name that a tensor has in the network itself."""
    if not any(piece in name for piece in WRAPPERS):
        return name
    return ".".join(piece for piece in name.split(".") if piece not in WRAPPERS)


def unwrap_names(names: Iterable[str], source: str) -> dict[str, str]:
    """A file's own names by the names without wrappers.

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
    return stored
