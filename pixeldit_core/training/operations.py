"""The layer classes that networks in training are built from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """With its scale in the dtype of the input: under autocast the fused kernel takes no other."""

    def forward(self, x: Tensor) -> Tensor:
        """As in torch; bit for bit the same in float32."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class TrainingOperations:
    """torch.nn's classes, but for RMSNorm."""

    Linear = nn.Linear
    Embedding = nn.Embedding
    RMSNorm = RMSNorm
    LayerNorm = nn.LayerNorm
    Conv2d = nn.Conv2d
    ConvTranspose2d = nn.ConvTranspose2d
