"""Feed-forward layers, token by token: [..., D] -> [..., D]."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations


def swiglu_size(width: int, ratio: float = 4.0, multiple: int = 0) -> int:
    """Hidden size of a SwiGLU: 2/3 of width * ratio, truncated twice (32 -> 85); rounded up to a multiple, if any."""
    size = int(2 * int(width * ratio) / 3)
    return -(-size // multiple) * multiple if multiple else size


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, width: int, hidden: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.w1 = operations.Linear(width, hidden, bias=False, **factory_kwargs)
        self.w3 = operations.Linear(width, hidden, bias=False, **factory_kwargs)
        self.w2 = operations.Linear(hidden, width, bias=False, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GeluMLP(nn.Module):
    """Two affine maps with an exact GELU between them; the hidden size is 4 times the width."""

    def __init__(self, width: int, *, operations: Operations = nn, **factory_kwargs: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, 4 * width, **factory_kwargs)
        self.fc2 = operations.Linear(4 * width, width, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))
