"""Sizes of a network from the shapes of its tensors: what all families need for it."""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def matrix(shapes: Shapes, key: str) -> tuple[int, int]:
    """Rows and columns of a weight.

    Raises:
        KeyError: it is missing.
        ValueError: it is not a matrix, or an empty one.
    """
    if len(shapes[key]) != 2 or 0 in shapes[key]:
        raise ValueError(f"tensor {key} is {list(shapes[key])}, and should be a matrix")
    rows, columns = shapes[key]
    return rows, columns


def vector(shapes: Shapes, key: str) -> int:
    """Length of a bias or of a norm's scales; raises as `matrix` does."""
    if len(shapes[key]) != 1 or 0 in shapes[key]:
        raise ValueError(f"tensor {key} is {list(shapes[key])}, and should be a vector")
    return shapes[key][0]


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """Highest block index + 1; a gap shows up later, as missing tensors.

    Raises:
        ValueError: most of the blocks are not there; a single name must not make a network of a billion blocks.
    """
    names = {key[len(prefix) :].split(".", 1)[0] for key in shapes if key.startswith(prefix)}
    indices = {int(name) for name in names if name.isdecimal()}
    count = max(indices, default=-1) + 1
    if count > 16 + 4 * len(indices):
        raise ValueError(f"{prefix}{count - 1} is there, and only {len(indices)} of the blocks up to it")
    return count
