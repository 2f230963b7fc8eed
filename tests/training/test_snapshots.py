"""Checkpoints of averages of any length, made from snapshots."""

from dataclasses import replace

import pytest
import torch
from training_runs import config_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.checkpoints.save import write
from pixeldit_core.cli import main
from pixeldit_core.training.snapshots import find_snapshots, reconstruct, write_snapshot

STEPS = 4000


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
