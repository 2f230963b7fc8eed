"""Muon: orthogonal steps, in the size of AdamW's."""

import pytest
import torch

from pixeldit_core import PixelDiT, PixelDiTParams
from pixeldit_core.training.muon import NEWTON_SCHULZ, Muon, orthogonalize, split_parameters


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (32, 32)])
def test_agrees_with_the_iteration_on_the_whole_matrix(shape):
    a, b, c = NEWTON_SCHULZ
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(orthogonalize([matrix])[0], x, atol=1e-5, rtol=0)


def test_singular_values_come_near_one_and_directions_stay():
    u, _, v = torch.linalg.svd(torch.randn(48, 48, generator=torch.Generator().manual_seed(1)))
    matrix = u @ torch.diag(torch.logspace(0, -1.5, 48)) @ v
    values = torch.linalg.svdvals(orthogonalize([matrix])[0])
    assert values.min() > 0.5 and values.max() < 1.3
    rotated = u.mT @ orthogonalize([matrix])[0] @ v.mT
    assert (rotated - torch.diag(torch.diagonal(rotated))).abs().max() < 1e-4


def test_a_zero_gradient_moves_nothing():
    assert not orthogonalize([torch.zeros(8, 4)])[0].any()


def test_matrices_of_several_sizes_keep_their_order():
    shapes = [(8, 4), (4, 8), (16, 4), (6, 6), (4, 4)]
    assert [tuple(m.shape) for m in orthogonalize([torch.randn(s) for s in shapes])] == shapes


def test_step_has_the_root_mean_square_of_an_adamw_step():
    weight = torch.nn.Parameter(torch.zeros(64, 32))
    weight.grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(2))
    Muon([weight], lr=1.0).step()
    assert 0.1 < weight.detach().square().mean().sqrt() < 0.25


def test_only_matrices_of_blocks_are_muons():
    network = PixelDiT(
        PixelDiTParams(
            hidden_size=24, num_groups=2, patch_depth=1, pixel_depth=1, patch_size=4, pixel_hidden_size=4, num_classes=3
        )
    )
    matrices, rest = split_parameters(network)
    assert len(matrices) == 6 + 7 and all(p.ndim == 2 for p in matrices)
    assert len(matrices) + len(rest) == len(list(network.parameters()))
