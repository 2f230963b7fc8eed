"""A loss of the velocity's frequencies, weighted as JPEG quantizes them (spec: pixelhdm, 11).

The reference transforms a block X to M X M; this is the DCT, M X M^T, that its documentation describes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import FrequencyConfig

BLOCK = 8  # side of a block of the transform

# JPEG standard, annex K
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


def frequency_loss(predicted: Tensor, target: Tensor, config: FrequencyConfig) -> Tensor:
    """Mean weighted squared error of the frequencies of velocities [B, C, H, W], times its weight: [B].

    YCbCr is for three channels; others are weighted as luma.
    """
    difference, (height, width) = predicted - target, predicted.shape[-2:]
    ycbcr = config.ycbcr and difference.shape[1] == 3
    if ycbcr:
        difference = to_ycbcr(difference)
    blocks = (math.ceil(height / BLOCK), math.ceil(width / BLOCK))
    tables = [jpeg_weights(config.quality, chroma=ycbcr and channel > 0) for channel in range(difference.shape[1])]
    weights = torch.stack(tables).to(difference, non_blocking=True).repeat(1, *blocks)[:, :height, :width]
    return config.weight * (weights * block_dct(difference).square()).flatten(1).mean(1)


def to_ycbcr(rgb: Tensor) -> Tensor:
    """[B, 3, H, W] -> the same shape, without offsets."""
    return torch.einsum("dc,bchw->bdhw", torch.tensor(_YCBCR).to(rgb, non_blocking=True), rgb)


def block_dct(x: Tensor) -> Tensor:
    """DCT-II of blocks of 8 x 8 of [B, C, H, W]; other sizes are padded by reflection, and cut again after it."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK), mode="reflect")
    blocks = x.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))  # [B, C, rows, 8, columns, 8]
    matrix = dct_matrix().to(x, non_blocking=True)
    blocks = torch.einsum("ij,bcrjsk,lk->bcrisl", matrix, blocks, matrix)
    return blocks.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


@lru_cache
def dct_matrix() -> Tensor:
    """The orthonormal DCT-II, float32 [8, 8]."""
    index = torch.arange(BLOCK, dtype=torch.float64)
    matrix = math.sqrt(2 / BLOCK) * torch.cos(math.pi * index[:, None] * (2 * index + 1) / (2 * BLOCK))
    matrix[0] = 1 / math.sqrt(BLOCK)
    return matrix.float()


@lru_cache
def jpeg_weights(quality: int, *, chroma: bool = False) -> Tensor:
    """Weights of the frequencies of a block, float32 [8, 8] with mean 1: inverses of JPEG's quantization steps.

    `quality` is 1 to 100; at 100 all frequencies weigh the same.
    """
    quality = min(max(quality, 1), 100)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor(_CHROMA if chroma else _LUMA, dtype=torch.float32)
    steps = ((base * scale + 50) / 100).floor().clamp(1, 255)
    return (1 / steps) / (1 / steps).mean()
