"""Runs from their first step to their last: what they write, and that stopping anywhere changes nothing."""

import csv
import signal

import pytest
import torch
from safetensors.torch import load_file
from training_runs import config_of, same_state, state_of, train, values, write_images

import pixeldit_core as pc
from pixeldit_core.cli import main
from pixeldit_core.training import engine
from pixeldit_core.training.recipe import from_values, write_recipe
from pixeldit_core.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run of 60 steps without a pause."""
    return train(config_of(images), tmp_path_factory.mktemp("runs") / "whole")


def losses(run):
    with run.log.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def stop_after(monkeypatch, step, number=signal.SIGTERM):
    """Send this process a signal during a step."""
    original = engine.Engine.step

    def wrapped(self, loaded, current, stop, ahead):
        if current == step - 1:
            signal.raise_signal(number)
        return original(self, loaded, current, stop, ahead)

    monkeypatch.setattr(engine.Engine, "step", wrapped)


def test_a_run_learns_and_writes_what_the_loader_opens(whole):
    found = losses(whole)
    assert len(found) == 60 and sum(found[-10:]) < 0.8 * sum(found[:10])
    model = pc.load_checkpoint(whole.model)
    assert model.class_names == (("gray",), ("light",), ("white",))
    x = pc.sample(model, pc.class_condition(model, "white"), size=(16, 16), steps=2)
    assert x.shape == (1, 3, 16, 16)
    raw = pc.load_checkpoint(whole.raw_model)
    state = load_file(whole.checkpoint(60) / "model.safetensors")
    for name, tensor in raw.network.state_dict().items():
        assert torch.equal(tensor, state[f"network.{name}"])
        assert name == "s_embedder.proj.bias" or not torch.equal(tensor, model.network.state_dict()[name])
    assert whole.curve.is_file() and whole.steps() == [60]


@pytest.mark.parametrize("step", [37, 10, 7])  # in the middle of epochs of 7 steps, and at the end of one
def test_a_stopped_and_resumed_run_is_the_same_bit_for_bit(images, whole, tmp_path, monkeypatch, step):
    config = config_of(images)
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of 60"):
            train(config, tmp_path)
    run = RunFolder(tmp_path)
    assert run.steps() == [step]
    train(config, tmp_path, resume=True)
    assert losses(run) == losses(whole)
    assert same_state(state_of(run, 60), state_of(whole, 60))


def test_ctrl_c_and_the_command_that_the_message_names(images, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "mine.yaml"
    write_recipe(from_values(values(images, engine={"steps": 12, "batch_size": 8}), "x"), recipe)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, signal.SIGINT)
        assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "engine.seed=6"]) == 130
    command = capsys.readouterr().err.split("python -m pixeldit_core ")[1].split()
    assert main(command) == 0
    run = RunFolder(tmp_path / "run")
    assert run.steps()[-1] == 12 and "model.safetensors" in capsys.readouterr().out
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "has a run already, saved after step 12. Go on with --resume" in capsys.readouterr().err


def test_samples_and_log_come_every_so_often_and_change_nothing(images, whole, tmp_path):
    sections = {"sample": {"every": 30, "count": 4, "steps": 2}, "engine": {"log_every": 20, "save_every": 20}}
    settings = values(images)["engine"] | sections["engine"]
    run = train(config_of(images, sample=sections["sample"], engine=settings), tmp_path)
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == ["step-000030.png", "step-000060.png"]
    assert run.steps() == [40, 60] and len(losses(run)) == 3
    assert same_state(state_of(run, 60), state_of(whole, 60))
