"""Averages of the weights, and averages of any length from snapshots."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import find_golden
from training_runs import config_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.checkpoints.save import write
from pixeldit_core.cli import main
from pixeldit_core.training.config import AverageConfig
from pixeldit_core.training.ema import Averages
from pixeldit_core.training.power_ema import beta, fit, gamma_of, inner_product, length_of, reachable_lengths
from pixeldit_core.training.snapshots import find_snapshots, reconstruct, write_snapshot

STEPS = 4000


@pytest.fixture(scope="module")
def weight():
    """One weight after each step: a random walk on a curve."""
    generator = np.random.default_rng(0)
    return 0.05 * generator.normal(size=STEPS).cumsum() + np.log1p(np.arange(STEPS))


def tracked(weight, length):
    """Its power-function average after each step."""
    gamma, average, seen = gamma_of(length), weight[0], []
    for step, value in enumerate(weight, 1):
        average += (value - average) * (1 - beta(gamma, step))
        seen.append(average)
    return np.array(seen)


def test_lengths_and_exponents_are_the_papers():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)  # table in section 3
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    for length in (0.01, 0.05, 0.1, 0.25):
        assert length_of(gamma_of(length)) == pytest.approx(length, rel=1e-9)
    for length in (0, -0.1, 0.28, 0.5, math.nan):
        with pytest.raises(ValueError, match="above 0 and below 0.28"):
            gamma_of(length)


def test_an_average_weighs_steps_by_the_power_of_their_time(weight):
    gamma = gamma_of(0.1)
    share = np.arange(1, STEPS + 1) ** (gamma + 1)
    share = np.diff(share, prepend=0) / share[-1]  # the integral of the profile over each step
    assert tracked(weight, 0.1)[-1] == pytest.approx((share * weight).sum(), rel=1e-9)


def test_inner_products_are_integrals():
    time = np.linspace(0, 1, 2_000_001)[1:]
    for a, gamma_a, b, gamma_b in ((1.0, 6.94, 0.6, 16.97), (0.5, 3.0, 0.5, 3.0), (0.3, 20.0, 0.9, 1.0)):
        profile_a = np.where(time <= a, (gamma_a + 1) * (time / a) ** gamma_a / a, 0)
        profile_b = np.where(time <= b, (gamma_b + 1) * (time / b) ** gamma_b / b, 0)
        assert inner_product(a, gamma_a, b, gamma_b) == pytest.approx((profile_a * profile_b).mean(), rel=1e-4)
    assert math.isfinite(inner_product(1e7, 500.0, 2e7, 300.0))


def profiles(every, last=STEPS, lengths=(0.05, 0.1)):
    """Times and exponents of a run's snapshots."""
    times = list(range(every, last + 1, every))
    return times * len(lengths), [gamma_of(length) for length in lengths for _ in times]


@pytest.mark.parametrize(
    "every, length, error", [(100, 0.07, 1e-3), (100, 0.15, 1e-3), (250, 0.07, 2e-3), (250, 0.15, 5e-3)]
)
def test_snapshots_of_two_lengths_make_any_other(weight, every, length, error):
    shares, left = fit(*profiles(every), STEPS, gamma_of(length))
    kept = np.concatenate([tracked(weight, each)[every - 1 :: every] for each in (0.05, 0.1)])
    assert abs(np.dot(shares, kept) - tracked(weight, length)[-1]) < error
    assert left < 0.01 and sum(shares) == pytest.approx(1, abs=1e-3)


# from 40 snapshots: length, error of its profile, and of the average in standard deviations of the weight
REACHED = [(0.03, 0.008, 7e-4), (0.07, 7e-4, 4e-5), (0.15, 0.0016, 3e-5), (0.2, 0.0043, 2e-4), (0.25, 0.027, 5e-3)]


@pytest.mark.parametrize("length, profile_error, error", REACHED)
@pytest.mark.parametrize("last", [STEPS, 2000])
def test_the_error_of_the_profile_bounds_that_of_the_average(weight, length, profile_error, error, last):
    times, gammas = profiles(100, last)
    shares, left = fit(times, gammas, last, gamma_of(length))
    kept = np.concatenate([tracked(weight, each)[99:last:100] for each in (0.05, 0.1)])
    expected = tracked(weight, length)[last - 1]
    distance, seen = abs(np.dot(shares, kept) - expected), weight[:last]
    # the bound of Cauchy and Schwarz: nothing on top of it for steps that are discrete
    norm = inner_product(last, gamma_of(length), last, gamma_of(length)) ** 0.5
    assert distance <= left * norm * np.linalg.norm(seen - seen.mean())
    if last == STEPS:
        assert left < profile_error and distance < error * weight.std()


@pytest.mark.parametrize("count", [1, 2, 4, 40])
@pytest.mark.parametrize("length", [0.04, 0.07, 0.15, 0.25])
def test_weights_that_never_moved_keep_their_size(count, length):
    assert sum(fit(*profiles(STEPS // count), STEPS, gamma_of(length))[0]) == pytest.approx(1, abs=1e-11)


def test_a_stored_average_is_itself():
    times, gammas = profiles(100)
    shares, error = fit(times, gammas, times[-1], gammas[-1])
    assert shares[-1] == pytest.approx(1) and np.abs(shares[:-1]).max() < 1e-8 and error < 1e-6


def test_a_thousand_snapshots_are_no_trouble():
    shares, error = fit(*profiles(2000, 1_000_000), 1_000_000, gamma_of(0.07))
    assert len(shares) == 1000 and error < 1e-5 and np.linalg.norm(shares) < 1


def test_more_snapshots_reach_more_lengths():
    short, long = reachable_lengths(*profiles(STEPS), STEPS, 0.1)
    assert 0.03 < short < 0.05 and 0.1 < long < 0.13
    shorter, longer = reachable_lengths(*profiles(100), STEPS, 0.1)
    assert shorter < 0.02 and longer > 0.25
    for length in (shorter, longer):
        assert fit(*profiles(100), STEPS, gamma_of(length))[1] <= 0.1
    assert reachable_lengths([STEPS / 2], [gamma_of(0.1)], STEPS, 0.1) is None


def test_too_few_snapshots_are_told_by_the_error_of_the_profile():
    assert fit([500, 1000], [gamma_of(0.1)] * 2, 1000, gamma_of(0.2))[1] > 0.1
    assert fit([1000], [gamma_of(0.1)], 1000, gamma_of(0.1))[1] < 1e-6


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that keeps snapshots of three lengths, of which one is for comparison."""
    folder = tmp_path_factory.mktemp("averages")
    images = write_images(folder / "images")
    power = {"decays": [0.9], "power": [0.05, 0.1, 0.15], "snapshot_every": 5}
    return train(config_of(images, average=power), folder / "run")


def test_a_run_s_snapshots_make_checkpoints_of_other_lengths(run, tmp_path):
    snapshots = find_snapshots(run.snapshots)
    assert len(snapshots) == 3 * 12 and {snapshot.length for snapshot in snapshots} == {0.05, 0.1, 0.15}
    only = tmp_path / "snapshots"
    only.mkdir()
    for snapshot in snapshots:
        if snapshot.length < 0.12:
            (only / snapshot.path.name).write_bytes(snapshot.path.read_bytes())
    made = reconstruct(only, 0.15, tmp_path / "made.safetensors")
    direct = pc.load_checkpoint(run.snapshots / "step-000060-0.150.safetensors").network.state_dict()
    raw = pc.load_checkpoint(run.raw_model).network.state_dict()
    model = pc.load_checkpoint(made.path)
    off = sum((tensor - direct[name]).square().sum() for name, tensor in model.network.state_dict().items()).sqrt()
    apart = sum((tensor - direct[name]).square().sum() for name, tensor in raw.items()).sqrt()
    assert off < 0.02 * apart
    assert model.class_names == (("gray",), ("light",), ("white",)) and made.count == 24


def test_the_command_makes_a_checkpoint_and_names_what_is_wrong(run, tmp_path, capsys):
    assert main(["ema", str(run.path), "--length", "0.1", "--step", "30", "--dtype", "fp16"]) == 0
    out = capsys.readouterr().out
    assert "model-ema-0.100-step-000030.safetensors" in out and "at step 30" in out
    assert pc.inspect_checkpoint(run.path / "model-ema-0.100-step-000030.safetensors").dtype == torch.float16
    assert main(["ema", str(run.path), "--length", "0.1"]) == 0
    assert pc.inspect_checkpoint(run.path / "model-ema-0.100.safetensors").dtype == torch.float32
    assert main(["ema", str(run.path), "--length", "0.1", "--force"]) == 0
    capsys.readouterr()
    for arguments, message in (
        ([str(run.path), "--length", "0.1"], "model-ema-0.100.safetensors exists. Add --force"),
        ([str(run.path), "--length", "0.01"], "Choose one from 0.0"),
        ([str(run.path), "--length", "0.4"], "above 0 and below 0.28"),
        ([str(run.path), "--length", "0.1", "--step", "32"], "no snapshots of step 32; the nearest is 30"),
        ([str(tmp_path), "--length", "0.1"], "average.power"),
    ):
        assert main(["ema", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_snapshots_that_do_not_belong_together_are_refused(tiny, tmp_path):
    model = tiny()
    tensors = model.network.state_dict()
    write_snapshot(model.spec, tensors, tmp_path, 5, 0.1)
    damaged = write_snapshot(model.spec, tensors, tmp_path, 10, 0.1)
    damaged.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"step-000010-0.100.safetensors"):
        reconstruct(tmp_path, 0.1, tmp_path / "out.safetensors")
    other = pc.build_model("pixeldit", pc.PixelDiTParams(16, 2, 1, 1, patch_size=8, pixel_hidden_size=4), device="cpu")
    write(other.spec, {k: torch.zeros_like(v) for k, v in other.network.state_dict().items()}, damaged)
    with pytest.raises(ValueError, match="is of another network"):
        reconstruct(tmp_path, 0.1, tmp_path / "out.safetensors")
    wider = pc.build_model("pixeldit", replace(model.params, num_classes=1), device="cpu")  # other shapes alone
    write_snapshot(wider.spec, {name: torch.ones_like(t) for name, t in wider.network.state_dict().items()}, tmp_path,
                   10, 0.1)  # fmt: skip
    with pytest.raises(ValueError, match=r"step-000005-0.100.safetensors is of another network"):
        reconstruct(tmp_path, 0.1, tmp_path / "out.safetensors")


def test_lengths_that_snapshots_do_not_give_are_refused_with_those_that_they_do(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"36 snapshots up to step 60 .* length 0.01: .*Choose one from 0\.0\d+ to 0\.2\d"
    ):
        reconstruct(run.snapshots, 0.01, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())
    shortest = reconstruct(run.snapshots, 0.03, tmp_path / "out.safetensors")
    assert 0 < shortest.error < 0.1


def test_a_length_keeps_all_of_its_digits(tiny, tmp_path):
    model = tiny()
    for length in (0.0625, 0.0626, 0.1):
        write_snapshot(model.spec, model.network.state_dict(), tmp_path, 5, length)
    assert [snapshot.length for snapshot in find_snapshots(tmp_path)] == [0.0625, 0.0626, 0.1]
    assert (tmp_path / "step-000005-0.100.safetensors").exists()


def test_unfinished_snapshots_are_none(tiny, tmp_path):
    model = tiny()
    path = write_snapshot(model.spec, model.network.state_dict(), tmp_path, 5, 0.1)
    path.rename(tmp_path / f".{path.name}.123.part")  # as a process that was killed leaves it
    with pytest.raises(ValueError, match="average.power"):
        find_snapshots(tmp_path)


def test_values_too_large_for_float16_are_kept(tiny, tmp_path):
    model = tiny()
    tensors = model.network.state_dict()
    assert pc.inspect_checkpoint(write_snapshot(model.spec, tensors, tmp_path, 5, 0.1)).dtype == torch.float16
    tensors["final_layer.linear.bias"][0] = 1e5
    path = write_snapshot(model.spec, tensors, tmp_path, 10, 0.1)
    assert pc.load_checkpoint(path).network.final_layer.linear.bias[0] == 1e5
