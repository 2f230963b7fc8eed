"""The loss of frequencies; its golden data is of a reference that transforms otherwise (test_golden_pixelhdm_loss)."""

import pytest
import torch
from helpers import randn

from pixeldit_core.training.config import FrequencyConfig
from pixeldit_core.training.frequency import block_dct, dct_matrix, frequency_loss, jpeg_weights, to_ycbcr


def test_blocks_are_transformed_from_both_sides():
    x, matrix = randn(2, 3, 16, 24), dct_matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8))
    transformed = block_dct(x)
    torch.testing.assert_close(transformed[1, 2, 8:, 8:16], matrix @ x[1, 2, 8:, 8:16] @ matrix.T)
    torch.testing.assert_close(transformed.square().sum(), x.square().sum())
    flat = block_dct(torch.ones(1, 1, 8, 8))
    assert flat[0, 0, 0, 0].item() == pytest.approx(8) and flat.abs().sum().item() == pytest.approx(8, abs=1e-4)


@pytest.mark.parametrize("size", [(12, 20), (5, 8), (9, 31)])
def test_odd_sizes_are_padded_by_reflection_and_cut(size):
    x = randn(1, 1, *size)
    padded = torch.nn.functional.pad(x, (0, -size[1] % 8, 0, -size[0] % 8), mode="reflect")
    assert torch.equal(block_dct(x), block_dct(padded)[:, :, : size[0], : size[1]])


def test_the_weights_are_jpeg_s():
    luma, chroma = jpeg_weights(50), jpeg_weights(50, chroma=True)
    assert luma.mean().item() == pytest.approx(1) and chroma.mean().item() == pytest.approx(1)
    assert (luma[0, 1] / luma[0, 0]).item() == pytest.approx(16 / 11) and luma.argmin() == 6 * 8 + 5  # 121
    assert (chroma[0, 0] / chroma[7, 7]).item() == pytest.approx(99 / 17)
    assert torch.equal(jpeg_weights(100), torch.ones(8, 8)) and torch.equal(jpeg_weights(200), jpeg_weights(100))


def test_the_loss_is_of_each_image_and_channel():
    predicted, target = randn(2, 3, 12, 20, seed=1), randn(2, 3, 12, 20, seed=2)
    loss = frequency_loss(predicted, target, FrequencyConfig(weight=2.0, quality=100))
    expected = 2 * block_dct(to_ycbcr(predicted - target)).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, expected)
    gray = frequency_loss(predicted[:, :1], target[:, :1], FrequencyConfig(quality=50))
    weights = jpeg_weights(50).repeat(2, 3)[:12, :20]
    torch.testing.assert_close(gray, (weights * block_dct((predicted - target)[:, :1]).square()).mean((1, 2, 3)))
    rgb = frequency_loss(predicted, target, FrequencyConfig(quality=50, ycbcr=False))
    torch.testing.assert_close(rgb, (weights * block_dct(predicted - target).square()).mean((1, 2, 3)))
    assert frequency_loss(target, target, FrequencyConfig()).tolist() == [0, 0]
