"""Row-wise maps over pixels in chunks that stay in a CPU's cache.

Legend: P pixels per patch, n maps, C pixel width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_CHUNK = 2**18  # values of a chunk of rows: its handful of intermediates stay in the cache


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether each operation is a pass of its own through a CPU's memory, so that layouts and sizes decide the time.

    A compiler fuses them, and a GPU has no cache to stay in.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def map_rows(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """function(*rows), where the rows do not depend on each other.

    On a CPU, many rows go a group at a time: every pass over all of them is one through main memory, and the
    intermediates of all of them, above all the hidden layer of the MLP, are the peak of memory.
    """
    if not runs_eagerly_on_cpu(rows[0]):  # before sizes are compared: a graph would be for one side of the limit only
        return function(*rows)
    size = max(1, ROWS_CHUNK // rows[0][0].numel())
    if len(rows[0]) <= size:
        return function(*rows)
    return torch.cat([function(*group) for group in zip(*(part.split(size) for part in rows), strict=True)])


def unbind_maps(maps: Tensor) -> tuple[Tensor, ...]:
    """[..., n, C] -> n times [..., C].

    On a CPU one copy makes each of them contiguous: an operation on runs of C values is several times slower.
    """
    maps = maps.movedim(-2, 0)
    return (maps.contiguous() if runs_eagerly_on_cpu(maps) else maps).unbind(0)
