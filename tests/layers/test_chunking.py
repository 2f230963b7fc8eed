"""What makes the network fast on a CPU changes nothing: the golden cases are too small to be divided into groups."""

import pytest
import torch

from pixeldit_core import PixelDiT, PixelDiTParams
from pixeldit_core.layers import chunking, rope


@pytest.fixture(params=[False, True], ids=["pre", "post"])
def network(request):
    torch.manual_seed(0)
    params = PixelDiTParams(32, 2, 1, 2, patch_size=8, num_classes=4, pit_adaln_post_modulation=request.param)
    network = PixelDiT(params)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
    return network


def run(network):
    """Output, gradients, and how often the first pixel block's MLP was called: 2 x 15 rows."""
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn(2, 3, 24, 40, generator=generator) for _ in range(2))
    calls = []
    hook = network.pixel_blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    network.zero_grad()
    output = network(x, torch.tensor([0.2, 0.7]), torch.tensor([1, 4]))
    (output * target).sum().backward()
    hook.remove()
    return output.detach(), [parameter.grad.clone() for parameter in network.parameters()], len(calls)


def assert_same(results, expected):
    torch.testing.assert_close(results[0], expected[0], rtol=1e-5, atol=1e-5)
    for gradient, other in zip(results[1], expected[1], strict=True):
        assert (gradient - other).norm() <= 1e-4 * other.norm() + 1e-6


def test_groups_of_rows_change_neither_output_nor_gradients(network, monkeypatch):
    whole = run(network)
    monkeypatch.setattr(chunking, "ROWS_CHUNK", 7 * 64 * 16)  # 7 rows of P x C values: four groups and a rest
    groups = run(network)
    assert (whole[2], groups[2]) == (1, 5)
    assert_same(groups, whole)


def test_the_path_for_gpus_and_compilers_gives_the_same(network, monkeypatch):
    eager = run(network)
    monkeypatch.setattr(chunking, "runs_eagerly_on_cpu", lambda x: False)
    monkeypatch.setattr(rope, "computes_complex", lambda x: False)
    assert_same(run(network), eager)


def test_a_group_of_float32_leaves_its_input_alone(network):
    before = torch.randn(30, 64, 16, generator=torch.Generator().manual_seed(2))
    z, s_cond = before.clone(), torch.ones(30, 32)
    with torch.no_grad():
        network.pixel_blocks[0](z, s_cond, 2, rope.rope_2d(3, 5, 16))
    assert torch.equal(z, before)
