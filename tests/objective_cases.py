"""What tests of the objective supply in place of data, random numbers and an encoder."""

import torch

from pixeldit_core.training.draws import Draws
from pixeldit_core.training.loss import Batch


class FixedFeatures:
    """An encoder that returns given features [B, N, width] of a grid."""

    def __init__(self, features, grid):
        self.features, self.grid, self.width = features, grid, features.shape[-1]
        self.seen = []

    def __call__(self, image, grid):
        self.seen.append((image, grid))
        return self.features, self.grid


def given(noise, normal=None, drop=None):
    """Draws with numbers of a golden case; `drop` [B] is true for rows that lose their condition."""
    rows = len(noise)
    uniform = torch.ones(rows, 4) if drop is None else (~drop.bool()).float()[:, None].repeat(1, 4)
    return Draws(noise, torch.zeros(rows) if normal is None else normal, uniform)


def batch(image, *condition, null=None):
    return Batch(image, condition, null, torch.ones(len(image)))


def part_of(tensors, prefix):
    """The tensors whose names start with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
