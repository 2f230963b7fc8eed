"""Runs of PixelDiT2 on the CPU, from the random weights of a frozen encoder."""

import csv
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training.pixeldit2_runs import ENGINE, run_config, write_encoder
from training_runs import same_state, state_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.cli import main
from pixeldit_core.training import engine
from pixeldit_core.training.run_folder import RunFolder

PLACE = "dino_conditioner.encoder."


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Images, and the file of an encoder."""
    folder = tmp_path_factory.mktemp("data")
    return write_images(folder / "images"), write_encoder(folder)


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    """A run with everything on: dropping of both kinds, and dropout in blocks."""
    return train(run_config(*parts, **ALL), tmp_path_factory.mktemp("runs") / "whole")


ALL = {
    "model": {"block_dropout": 0.2},
    "objective": {"time_mean": -0.8, "time_std": 0.8, "joint_dropout": 0.05, "grounding_dropout_start": 4},
    "average": {"decays": [0.9], "power": [0.05, 0.1]},
    "sample": {"every": 30, "count": 3, "steps": 2},
}


def losses(run):
    with run.log.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def frozen(tensors, place=PLACE):
    return {key.removeprefix(place): value for key, value in tensors.items() if key.startswith(place)}


def test_it_learns_and_its_file_samples(whole):
    found = losses(whole)
    assert len(found) == 60 and sum(found[-10:]) < 0.8 * sum(found[:10])
    model = pc.load_checkpoint(whole.model)
    assert model.family.name == "pixeldit2" and model.class_names == (("gray",), ("light",), ("white",))
    x = pc.sample(model, pc.class_condition(model, "white"), size=(16, 16), steps=2)
    assert x.shape == (1, 3, 16, 16) and x.isfinite().all()
    assert whole.sample_sheet(60).is_file()


def test_the_encoder_is_neither_trained_nor_averaged_and_is_in_every_model_file(parts, whole):
    encoder, state = load_file(parts[1]), state_of(whole, 60)
    assert not any(key.startswith("decay") and PLACE in key for key in state)
    for tensors in (
        frozen(load_file(whole.model)),
        frozen(load_file(whole.raw_model)),
        frozen(state, f"network.{PLACE}"),
    ):
        assert tensors.keys() == encoder.keys()
        assert all(torch.equal(tensors[key], value) for key, value in encoder.items())
    trained = {key for key in load_file(whole.raw_model) if not key.startswith(PLACE)}
    optimizer = torch.load(whole.checkpoint(60) / "optimizer.bin", weights_only=True)
    assert len(optimizer["state"]) == len(trained)


@pytest.mark.parametrize("step", [37, 3])  # 3: nothing is dropped of the grounding yet
def test_a_stopped_and_resumed_run_is_the_same_bit_for_bit(parts, whole, tmp_path, monkeypatch, step):
    original = engine.Engine.step

    def wrapped(self, loaded, current, stop, ahead):
        if current == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, loaded, current, stop, ahead)

    config = run_config(*parts, **ALL)
    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "step", wrapped)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of 60"):
            train(config, tmp_path)
    run = train(config, tmp_path, resume=True)
    assert losses(run) == losses(whole)
    assert same_state(state_of(run, 60), state_of(whole, 60))
    assert same_state(load_file(run.model), load_file(whole.model))


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_change_nothing_but_rounding(parts, whole, tmp_path, micro_batch):
    """Those of one image are often not grounded at all."""
    sections = {**ALL, "model": {}, "sample": {}, "engine": ENGINE | {"steps": 12, "micro_batch": micro_batch}}
    split = train(run_config(*parts, **sections), tmp_path / "split")
    together = train(run_config(*parts, **sections | {"engine": ENGINE | {"steps": 12}}), tmp_path / "together")
    expected = state_of(together, 12)
    for name, tensor in state_of(split, 12).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def three_steps(parts, tmp_path_factory):
    return load_file(train(run_config(*parts, engine=ENGINE | {"steps": 3}), tmp_path_factory.mktemp("three")).model)


@pytest.mark.parametrize(
    "way", [{"activation_checkpointing": True}, {"compile": "blocks"}, {"compile": "whole"}], ids=str
)
def test_checkpointing_and_compilation_change_nothing_but_rounding(parts, three_steps, tmp_path, monkeypatch, way):
    """Compiled by nothing but the tracer."""
    torch._dynamo.reset()
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend="eager"))
    run = train(run_config(*parts, engine=ENGINE | {"steps": 3} | way), tmp_path)
    for name, tensor in load_file(run.model).items():
        torch.testing.assert_close(tensor, three_steps[name], atol=1e-5, rtol=1e-4, msg=name)
    torch._dynamo.reset()


def test_snapshots_have_no_encoder_and_what_is_made_of_them_has_it(parts, whole, tmp_path):
    for path in whole.snapshots.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert not any(key.startswith(PLACE) for key in file.keys())  # noqa: SIM118
    target = tmp_path / "average.safetensors"
    assert main(["ema", str(whole.path), "--length", "0.07", "--out", str(target)]) == 0
    assert pc.load_checkpoint(target, encoder="inside").params.encoder_depth == 2
    encoder = load_file(parts[1])
    assert all(torch.equal(value, encoder[key]) for key, value in frozen(load_file(target)).items())
    assert main(["ema", str(whole.path), "--length", "0.07", "--out", str(target), "--force", "--encoder", "none"]) == 0
    assert not frozen(load_file(target))


def test_a_lora_spares_the_encoder_and_its_file_is_applied(parts, whole, tmp_path):
    sections = {
        "model": {"family": None, "params": {}, "start": str(whole.model), "encoder": None},
        "lora": {"rank": 4, "alpha": 4.0, "targets": ["qkv", "proj", "w1", "w2", "w3"]},
        "optim": {"learning_rate": 1e-2},
        "engine": ENGINE | {"steps": 12},
        "sample": {"every": 12, "count": 2, "steps": 1},
    }
    run = train(run_config(*parts, **sections), tmp_path)
    with safe_open(run.lora, "pt") as file:
        keys = list(file.keys())
    assert any("dino_proj" in key for key in keys) and not any(PLACE in key for key in keys)
    model, base = pc.load_checkpoint(whole.model), pc.load_checkpoint(whole.model)
    assert pc.apply_lora(model, run.lora) == 5 * 4 + 5 + 1  # of the patch blocks, the projection's, s_embedder.proj
    x, condition = torch.ones(1, 3, 16, 16), torch.tensor([1])
    assert not torch.equal(model.velocity(x, 0.5, condition), base.velocity(x, 0.5, condition))


def test_a_start_without_an_encoder_gets_it_from_the_recipe(parts, whole, tmp_path):
    start = pc.save_checkpoint(whole.model, tmp_path / "start" / "bare.safetensors", encoder="none")
    model = {"family": None, "params": {}, "start": str(start)}
    run = train(run_config(*parts, model=model, engine=ENGINE | {"steps": 2}), tmp_path / "run")
    assert frozen(load_file(run.model)).keys() == load_file(parts[1]).keys()
    with pytest.raises(ValueError, match=r"bare.safetensors: this PixelDiT2 looks .* neither in the file nor beside"):
        train(run_config(*parts, model=model | {"encoder": None}), tmp_path / "other")


def test_what_is_wrong_about_an_encoder_is_named(parts, tmp_path):
    def fails(match, **model):
        with pytest.raises(ValueError, match=match):
            train(run_config(*parts, model=model), tmp_path)

    fails("model.encoder is not set: PixelDiT2 looks at its own input through a DINOv3 ViT of width 16", encoder=None)
    fails("model.encoder nowhere is not there", encoder="nowhere")
    fails(
        r"is a DINOv3 ViT of width 16, and the network of the recipe needs .*ViT-S/16.*timm/vit_small",
        params={"hidden_size": 16, "num_heads": 2, "depth": 2, "num_classes": 3, "in_context_start": 1},
    )
    fails("looks through no encoder: leave it out", family="xpred_dit", params={
        "dim": 16, "depth": 1, "in_channels": 3, "heads": 2, "dim_head": 8, "image_size": 16, "num_classes": 3,
    })  # fmt: skip
    assert RunFolder(tmp_path).steps() == []
