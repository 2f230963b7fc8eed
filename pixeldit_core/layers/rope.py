"""Rotary position tables and the rotation itself (float32, whatever the network's dtype).

A `Rope` is (cos, sin), each [L, e/2], or [B, L, e/2] where images of a batch differ. Legend: L tokens, e head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunking import runs_eagerly_on_cpu
from .operations import Device

Rope = tuple[Tensor, Tensor]
Move = Callable[[Tensor, int], Tensor]  # positions of the rows (axis 0) or columns (1) of a grid -> others


def _frequencies(size: int, step: int, theta: float, device: Device) -> Tensor:
    """theta ** -(k * step / size), float32, for every whole k with k * step < size."""
    return 1.0 / theta ** (torch.arange(0, size, step, dtype=torch.float32, device=device) / size)


def moved(rows: Tensor, columns: Tensor, move: Move | None) -> tuple[Tensor, Tensor]:
    """Positions of rows and columns, moved; None = as they are."""
    return (rows, columns) if move is None else (move(rows, 0), move(columns, 1))


def rope_2d(
    height: int,
    width: int,
    head_dim: int,
    device: Device = None,
    *,
    theta: float = 10000.0,
    extent: float = 16.0,
    move: Move | None = None,
) -> Rope:
    """Rotary table [height*width, head_dim/2] of a grid of patches, row-major (spec: official, 1).

    Both axes span [0, extent] whatever the resolution; column and row angles are interleaved per frequency.
    `head_dim` must be a multiple of 4. `move` moves the rows and columns; None = where the network was trained.
    """
    frequencies = _frequencies(head_dim, 4, theta, device)  # e/4
    rows, columns = (
        torch.linspace(0, extent, length, dtype=torch.float32, device=device) for length in (height, width)
    )
    rows, columns = (side[:, None] * frequencies for side in moved(rows, columns, move))
    size = (height, width, frequencies.numel())

    def interleave(function: Callable[[Tensor], Tensor]) -> Tensor:
        # sin and cos of each axis alone, then expanded: H + W evaluations in place of H * W
        pair = [function(columns)[None].expand(size), function(rows)[:, None].expand(size)]
        return torch.stack(pair, dim=-1).reshape(height * width, head_dim // 2)

    return interleave(torch.cos), interleave(torch.sin)


def rope_1d(length: int, head_dim: int, device: Device = None, *, theta: float = 10000.0) -> Rope:
    """Rotary table [length, head_dim/2] of a sequence of text tokens."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = positions[:, None] * _frequencies(head_dim, 2, theta, device)
    return angles.cos(), angles.sin()


def mrope(positions: Tensor, sizes: tuple[int, ...], theta: float = 10000.0) -> Rope:
    """Rotary table of tokens with several coordinates: [..., L, axes] -> [..., L, sum(sizes)/2].

    A head is cut into consecutive runs of `sizes` channels, one for each axis, with frequencies of its own. Sizes must
    be even (spec: pixelhdm, 3.4).
    """
    angles = []
    for axis, size in enumerate(sizes):
        angles.append(positions[..., axis, None].float() * _frequencies(size, 2, theta, positions.device))
    joined = torch.cat(angles, dim=-1)
    return joined.cos(), joined.sin()


def rope_grid(
    height: int,
    width: int,
    head_dim: int,
    device: Device = None,
    theta: float = 10000.0,
    move: Move | None = None,
) -> Rope:
    """Rotary table [height*width, head_dim/2] of a grid of tokens by their integer row and column, row-major.

    All angles of the row, then all of the column, cut to head_dim/2 where its half is odd (spec: xpred, section 1).
    `head_dim` must be even. `move` moves the rows and columns; None = where the network was trained.
    """
    half = head_dim // 2
    frequencies = _frequencies(half, 2, theta, device)
    rows, columns = (torch.arange(length, dtype=torch.float32, device=device) for length in (height, width))
    rows, columns = (side[:, None] * frequencies for side in moved(rows, columns, move))
    size = (height, width, frequencies.numel())

    def join(function: Callable[[Tensor], Tensor]) -> Tensor:
        pair = [function(rows)[:, None].expand(size), function(columns)[None].expand(size)]
        return torch.cat(pair, dim=-1).flatten(0, 1)[:, :half]

    return join(torch.cos), join(torch.sin)


def pad_identity(rope: Rope, after: int = 0, *, before: int = 0) -> Rope:
    """A table [before + L + after, e/2] whose first and last tokens are not rotated."""
    cos, sin = rope
    return F.pad(cos, (0, 0, before, after), value=1.0), F.pad(sin, (0, 0, before, after))


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the adjacent channel pairs (2j, 2j+1) of [B, L, heads, e] by tables of [L, e/2] or [B, L, e/2].

    Computed in float32, returned in the dtype of `x`.
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    if not runs_eagerly_on_cpu(x):
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
    # There, every second channel at a time takes five times as long. Two products and a sum, rounded as those above.
    numbers = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(numbers * cos + numbers * (1j * sin)).flatten(-2).to(x.dtype)
