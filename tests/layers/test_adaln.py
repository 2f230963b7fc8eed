"""The two formulas of adaptive normalization, for maps per batch row, per token and per pixel."""

import pytest
import torch
from helpers import randn

from pixeldit_core.layers.adaln import block_maps, modulate, scale_shift


@pytest.mark.parametrize("maps", [(2, 1, 8), (2, 5, 8)], ids=["row", "token"])
def test_formulas(maps):
    x, scale, shift = randn(2, 5, 8, seed=0), randn(*maps, seed=1), randn(*maps, seed=2)
    torch.testing.assert_close(modulate(x, shift, scale), x * (1 + scale) + shift)
    torch.testing.assert_close(scale_shift(x, scale, shift), x * scale + shift)


def test_maps_that_change_nothing():
    x, zero, one = randn(2, 5, 8, seed=0), torch.zeros(2, 1, 8), torch.ones(2, 1, 8)
    assert torch.equal(modulate(x, zero, zero), x)
    assert torch.equal(scale_shift(x, one, zero), x)


@pytest.mark.parametrize("rows", [(2, 1), (2, 5)], ids=["row", "token"])
def test_maps_of_a_block_have_1_added_to_the_scales(rows):
    maps = randn(*rows, 6 * 8, seed=0)
    shift1, scale1, gate1, shift2, scale2, gate2 = maps.chunk(6, dim=-1)
    expected = (shift1, scale1 + 1, gate1, shift2, scale2 + 1, gate2)
    assert all(map(torch.equal, block_maps(maps), expected))
