"""Averages of the weights."""

import math

import pytest
import torch
from helpers import find_golden

from pixeldit_core.training.config import AverageConfig
from pixeldit_core.training.ema import Averages

STEPS = 4000


def test_averages_are_float32_copies_that_follow_floats_and_copy_integers():
    weights = {"a": torch.ones(3, dtype=torch.bfloat16), "count": torch.tensor(1)}
    averages = Averages(weights, AverageConfig(decays=(0.5, 0.9), power=(0.1,)))
    assert averages.main["a"].dtype == torch.float32
    for step in (1, 2):
        weights = {"a": torch.full((3,), 3.0, dtype=torch.bfloat16), "count": torch.tensor(5 * step)}
        averages.update(weights, step)
    assert averages.main["a"].tolist() == [2.5] * 3 and averages.main["count"] == 10
    torch.testing.assert_close(averages.decays[0.9]["a"], torch.full((3,), 1 + 2 * (1 - 0.81)))
    assert averages.power[0.1]["a"].tolist() == [3.0] * 3  # step 1 forgets the initial weights
    assert all(not name.startswith("a") for name in averages.state_dict())


def test_states_are_strict():
    weights = {"a": torch.ones(2)}
    first, second = (Averages(weights, AverageConfig(decays=(0.5,), power=(0.05,))) for _ in range(2))
    first.update({"a": torch.full((2,), 9.0)}, 3)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    assert torch.equal(second.main["a"], first.main["a"]) and torch.equal(
        second.power[0.05]["a"], first.power[0.05]["a"]
    )
    with pytest.raises(KeyError, match="missing or unknown"):
        second.load_state_dict(Averages(weights, AverageConfig(decays=(0.9,))).state_dict())
    other = Averages({"a": torch.ones(3)}, AverageConfig(decays=(0.5,), power=(0.05,)))
    with pytest.raises(RuntimeError):
        second.load_state_dict(other.state_dict())

    first.update({"a": torch.full((2,), 9.0)}, 4)
    with pytest.raises(RuntimeError, match=r"decay-0.5/a is \[1\], expected \[2\]"):  # and not broadcast
        second.load_state_dict({name: tensor[:1] for name, tensor in first.state_dict().items()})
    assert second.main["a"].tolist() == [5.0, 5.0]


def test_averages_go_on_from_their_state_bit_for_bit():
    def weights(step):
        return {"a": torch.randn(5, generator=torch.Generator().manual_seed(step)), "count": torch.tensor(step)}

    config = AverageConfig(decays=(0.5, 0.9), power=(0.05, 0.1))
    whole, first, second = (Averages(weights(0), config) for _ in range(3))
    for step in range(1, 9):
        whole.update(weights(step), step)
        (first if step <= 4 else second).update(weights(step), step)
        if step == 4:
            second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    expected, actual = whole.state_dict(), second.state_dict()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_never_enters(value):
    weights = {"a": torch.ones(3), "b": torch.ones(2, 2), "count": torch.tensor(1)}
    averages = Averages(weights, AverageConfig(decays=(0.5,), power=(0.1,)))
    assert averages.update(weights, 1) is True
    before = {name: tensor.clone() for name, tensor in averages.state_dict().items()}
    weights["a"] += 1
    weights["b"][1, 1] = value
    assert averages.update(weights, 2) is False
    assert all(torch.equal(before[name], tensor) for name, tensor in averages.state_dict().items())
    weights["b"][1, 1] = 1.0
    assert averages.update(weights, 3) is True and averages.main["a"].tolist() == [1.5] * 3


@pytest.mark.golden
def test_fixed_decays_are_those_of_the_reference_program():
    """Whose update_after_step is a number of updates that are left out."""
    for trace in find_golden("60_schedules", "pixelhdm").case["ema"]:
        averages = Averages({"a": torch.ones(1)}, AverageConfig(decays=(trace["decay"],)))
        for step, expected in enumerate(trace["shadow"]):
            if step >= trace["update_after_step"]:
                averages.update({"a": torch.full((1,), float(step * step))}, step + 1)
            assert averages.main["a"].item() == pytest.approx(expected, abs=1e-6)


def test_shares_of_tensors_have_averages_of_shares(tmp_path):
    """FSDP's tensors: the same numbers; whole ones are split again when they are loaded."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        plain, sharded = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        sharded.load_state_dict(plain.state_dict())
        fully_shard(sharded, mesh=dist.init_device_mesh("cpu", (1,)))
        config = AverageConfig(decays=(0.9,), power=(0.1,))
        first, second = (Averages(dict(module.named_parameters()), config) for module in (plain, sharded))
        assert hasattr(second.main["weight"], "full_tensor")
        for step in (1, 2, 3):
            for module, averages in ((plain, first), (sharded, second)):
                with torch.no_grad():
                    module.weight.add_(torch.full_like(module.weight, step))
                assert averages.update(dict(module.named_parameters()), step)
        whole = {name: tensor.full_tensor() for name, tensor in second.state_dict().items()}
        assert all(torch.equal(tensor, whole[name]) for name, tensor in first.state_dict().items())
        third = Averages(dict(sharded.named_parameters()), config)
        third.load_state_dict(whole)
        assert all(torch.equal(t.full_tensor(), whole[name]) for name, t in third.state_dict().items())
        with torch.no_grad():
            sharded.bias.fill_(math.nan)
        assert not second.update(dict(sharded.named_parameters()), 4)
    finally:
        dist.destroy_process_group()


def test_no_average_at_all_is_possible_only_with_power_ones():
    assert Averages({"a": torch.ones(1)}, AverageConfig(decays=(), power=(0.1,))).main["a"].item() == 1
