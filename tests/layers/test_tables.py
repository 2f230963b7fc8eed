"""Tables are made once for a size, not too many are kept, and they are fit for any later use."""

import copy
import pickle

import pytest
import torch
from helpers import randn

import pixeldit_core as pc
from pixeldit_core.layers.rope import rope_1d
from pixeldit_core.layers.tables import COUNT, KeptTables

CPU = torch.device("cpu")


def counted(calls):
    def make(length, device):
        calls.append(length)
        return torch.arange(length, device=device)

    return make


def test_the_last_few_are_kept():
    tables, calls = KeptTables(), []
    make = counted(calls)
    first = tables(make, 0, CPU)
    for length in range(COUNT):
        assert torch.equal(tables(make, length, CPU), torch.arange(length))
        assert tables(make, 0, CPU) is first, "used again and again"
    assert calls == list(range(COUNT))
    tables(make, COUNT, CPU)
    tables(make, 1, CPU)
    assert calls == [*range(COUNT + 1), 1], "the one that was not used for longest went"


def test_devices_and_dtypes_have_tables_of_their_own():
    tables = KeptTables()
    assert tables(rope_1d, 4, 8, torch.device("meta")).device.type == "meta"
    assert tables(rope_1d, 4, 8, CPU).device.type == "cpu"


def test_a_copy_starts_without_any():
    tables, calls = KeptTables(), []
    tables(counted(calls), 3, CPU)
    for other in (copy.deepcopy(tables), pickle.loads(pickle.dumps(tables))):
        assert isinstance(other, KeptTables) and not other._kept


def official():
    torch.manual_seed(0)
    params = pc.PixelDiTParams(24, 2, 2, 1, patch_size=4, pixel_hidden_size=4, num_classes=3)
    network = pc.PixelDiT(params)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
    return network


def test_a_network_samples_in_inference_mode_and_trains_afterwards():
    network, x, time, label = official(), randn(2, 3, 8, 12), torch.tensor([0.2, 0.7]), torch.tensor([1, 3])
    with torch.inference_mode():
        expected = network(x, time, label).clone()
    output = network(x, time, label)
    output.square().mean().backward()
    torch.testing.assert_close(output.detach(), expected)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_calls_of_many_sizes_are_those_of_a_new_network():
    network, generator = official(), torch.Generator().manual_seed(1)
    for height, width in ((8, 12), (12, 8), (16, 16), (4, 4), (8, 12), (20, 4), (8, 12), (12, 8)):
        x = torch.randn(1, 3, height, width, generator=generator)
        inputs = (x, torch.tensor([0.3]), torch.tensor([2]))
        assert torch.equal(network(*inputs), official()(*inputs)), (height, width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_may_change_its_dtype_between_calls(dtype):
    network, x = official(), randn(1, 3, 8, 8)
    network(x, torch.tensor([0.3]), torch.tensor([2]))
    inputs = (x.to(dtype), torch.tensor([0.3]), torch.tensor([2]))
    assert torch.equal(network.to(dtype)(*inputs), official().to(dtype)(*inputs))
