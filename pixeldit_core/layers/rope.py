"""Rotary position tables and the rotation itself (float32, whatever the network's dtype).

A `Rope` is a table of cosines and sines, [L, e/2, 2], or [B, L, e/2, 2] where images of a batch differ.
Legend: L tokens, e head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .operations import Device

Rope = Tensor
Move = Callable[[Tensor, int], Tensor]  # positions of the rows (axis 0) or columns (1) of a grid -> others


def from_angles(angles: Tensor) -> Rope:
    """Angles [..., e/2] -> the table [..., e/2, 2]."""
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


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
    """Rotary table of a grid of height*width patches, row-major (spec: official, 1).

    Both axes span [0, extent] whatever the resolution; column and row angles are interleaved per frequency.
    `head_dim` must be a multiple of 4. `move` moves the rows and columns; None = where the network was trained.
    """
    frequencies = _frequencies(head_dim, 4, theta, device)  # e/4
    rows, columns = (
        torch.linspace(0, extent, length, dtype=torch.float32, device=device) for length in (height, width)
    )
    rows, columns = (side[:, None] * frequencies for side in moved(rows, columns, move))
    size = (height, width, frequencies.numel())

    # sin and cos of each axis alone, then expanded: H + W evaluations in place of H * W
    pair = [from_angles(columns)[None].expand(*size, 2), from_angles(rows)[:, None].expand(*size, 2)]
    return torch.stack(pair, dim=-2).reshape(height * width, head_dim // 2, 2)


def rope_1d(length: int, head_dim: int, device: Device = None, theta: float = 10000.0) -> Rope:
    """Rotary table of a sequence of `length` text tokens."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    return from_angles(positions[:, None] * _frequencies(head_dim, 2, theta, device))


def mrope(positions: Tensor, sizes: tuple[int, ...], theta: float = 10000.0) -> Rope:
    """Rotary table of tokens with several coordinates: [..., L, axes] -> [..., L, sum(sizes)/2, 2].

    A head is cut into consecutive runs of `sizes` channels, one for each axis, with frequencies of its own. Sizes must
    be even (spec: pixelhdm, 3.4).
    """
    angles = []
    for axis, size in enumerate(sizes):
        angles.append(positions[..., axis, None].float() * _frequencies(size, 2, theta, positions.device))
    return from_angles(torch.cat(angles, dim=-1))


def rope_grid(
    height: int,
    width: int,
    head_dim: int,
    device: Device = None,
    theta: float = 10000.0,
    move: Move | None = None,
) -> Rope:
    """Rotary table of a grid of height*width tokens by their integer row and column, row-major.

    All angles of the row, then all of the column, cut to head_dim/2 where its half is odd (spec: xpred, section 1).
    `head_dim` must be even. `move` moves the rows and columns; None = where the network was trained.
    """
    half = head_dim // 2
    frequencies = _frequencies(half, 2, theta, device)
    rows, columns = (torch.arange(length, dtype=torch.float32, device=device) for length in (height, width))
    rows, columns = (side[:, None] * frequencies for side in moved(rows, columns, move))
    size = (height, width, frequencies.numel())

    pair = [from_angles(rows)[:, None].expand(*size, 2), from_angles(columns)[None].expand(*size, 2)]
    return torch.cat(pair, dim=-2).flatten(0, 1)[:, :half]


def pad_identity(rope: Rope, after: int = 0, *, before: int = 0) -> Rope:
    """A table [before + L + after, e/2, 2] whose first and last tokens are not rotated."""
    cos, sin = (F.pad(rope[..., i], (0, 0, before, after), value=1.0 - i) for i in range(2))
    return torch.stack([cos, sin], dim=-1)


def apply_rope(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the adjacent channel pairs (2j, 2j+1) of [..., L, heads, e] by a table [L, e/2, 2] or [B, L, e/2, 2].

    Computed in float32, returned in the dtype of `x`.
    """
    rope = rope.unsqueeze(-3)
    pairs = x.float().unflatten(-1, (-1, 2))
    if not computes_complex(x):
        (a, b), (cos, sin) = pairs.unbind(-1), rope.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
    rotated = torch.view_as_complex(pairs.contiguous()) * torch.view_as_complex(rope)
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)


def rotate(q: Sequence[Tensor], k: Sequence[Tensor], rope: Rope | None) -> tuple[Tensor, Tensor]:
    """Queries and keys [B, L, h, e], of one sequence or of several joined to one, rotated; None = not."""
    like = q[0]
    alike = all(part.shape[2:] == like.shape[2:] for part in (*q, *k))
    if rope is None or like.dtype == torch.float32 or not alike or not computes_complex(like):
        return _rotate_joined(q, rope), _rotate_joined(k, rope)
    # One cast, product and cast for all: a GPU's time at a small batch is the number of kernels. The empty tensor
    # makes the copy that puts them side by side cast them, too; they are rotated in place.
    nothing = like.new_empty(len(like), 0, *like.shape[2:], dtype=torch.float32)
    joined = torch.cat([*q, *k, nothing], dim=1).unflatten(1, (2, -1))
    table = (rope if rope.ndim == 3 else rope[:, None]).unsqueeze(-3)
    torch.view_as_complex(joined.unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(table))
    rotated = joined.to(like.dtype)
    return rotated[:, 0], rotated[:, 1]


def _rotate_joined(parts: Sequence[Tensor], rope: Rope | None) -> Tensor:
    x = parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
    return x if rope is None else apply_rope(x, rope)


def computes_complex(x: Tensor) -> bool:
    """Whether one product of complex numbers is the fast way: a compiler fuses the real form, other devices may have
    no complex numbers."""
    return x.device.type in ("cpu", "cuda", "meta") and not torch.compiler.is_compiling()
