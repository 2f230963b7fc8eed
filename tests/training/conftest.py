"""A tiny model with initial weights, and images that a few steps can learn something from."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.training.initialize import initialize

TINY = pc.PixelDiTParams(
    hidden_size=24, num_groups=2, patch_depth=1, pixel_depth=1, patch_size=8, pixel_hidden_size=4, num_classes=12
)
TINY_XPRED = pc.XPredParams(
    dim=16, depth=1, in_channels=1, heads=2, dim_head=8, image_size=28, pixel_dim=4, pixel_depth=1, compress_ratio=4
)


@pytest.fixture
def build_tiny():
    """A function (seed, family, params or None) -> model."""

    def build(seed=0, family="pixeldit", params=None):
        model = pc.build_model(family, params or (TINY if family == "pixeldit" else TINY_XPRED), device="cpu")
        torch.manual_seed(seed)
        initialize(model)
        return model

    return build


@pytest.fixture
def stripes():
    """A function (count, size, channels, classes) -> uint8 images, one brightness per class and a stripe; labels."""

    def draw(count, size=16, channels=3, classes=12):
        labels = torch.arange(count) % classes
        images = (20 * labels).byte().view(-1, 1, 1, 1).repeat(1, size, size, channels)
        images[:, size // 4 : size // 2] = 0
        return images, labels

    return draw
