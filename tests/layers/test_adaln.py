"""The two formulas of adaptive normalization, for maps per batch row, per token and per pixel."""

import pytest
import torch
from helpers import randn

from pixeldit_core.layers import chunking
from pixeldit_core.layers.adaln import modulate, norm_modulate, norm_scale_shift, scale_shift


@pytest.mark.parametrize("maps", [(2, 1, 8), (2, 5, 8)], ids=["row", "token"])
def test_formulas(maps):
    x, scale, shift = randn(2, 5, 8, seed=0), randn(*maps, seed=1), randn(*maps, seed=2)
    torch.testing.assert_close(modulate(x, shift, scale), x * (1 + scale) + shift)
    torch.testing.assert_close(scale_shift(x, scale, shift), x * scale + shift)


def test_maps_that_change_nothing():
    x, zero, one = randn(2, 5, 8, seed=0), torch.zeros(2, 1, 8), torch.ones(2, 1, 8)
    assert torch.equal(modulate(x, zero, zero), x)
    assert torch.equal(scale_shift(x, one, zero), x)


def test_groups_of_tokens_are_modulated_as_all_at_once(monkeypatch):
    x, scale, shift = randn(2, 5, 8, seed=0), randn(2, 1, 8, seed=1), randn(2, 1, 8, seed=2)
    norm = torch.nn.RMSNorm(8, eps=1e-6)
    expected = modulate(norm(x), shift, scale), scale_shift(norm(x), scale, shift)
    monkeypatch.setattr(chunking, "TOKENS_CHUNK", 16)
    torch.testing.assert_close(
        (norm_modulate(norm, x, shift, scale), norm_scale_shift(norm, x, scale, shift)), expected
    )
