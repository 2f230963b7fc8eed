"""The command line with a PixelDiT2: its encoder inside, beside, given or left out."""

import dataclasses
import json

import numpy as np
import pytest
from checkpoints.encoder_files import saved, timm
from evaluation.runs import evaluate, read
from helpers import ROOT, file_names
from PIL import Image
from pixeldit2_cases import TINY, tiny
from safetensors import safe_open

import pixeldit_core as pc
from pixeldit_core.cli import main

PLACE = "dino_conditioner.encoder."
FAST = ("--size", "8", "--steps", "3", "--device", "cpu")


@pytest.fixture
def files(tmp_path):
    """A checkpoint without its encoder, and the encoder, elsewhere."""
    model = tiny()
    model.spec = dataclasses.replace(model.spec, class_names=tuple((f"class {n}",) for n in range(5)))
    bare = pc.save_checkpoint(model, tmp_path / "models" / "bare.safetensors", encoder="none")
    return bare, saved(tmp_path / "encoders" / "model.safetensors", timm(model))


def fails(capsys, *words):
    assert main(list(map(str, words))) == 2
    return capsys.readouterr().err


def test_sample_takes_the_encoder_and_published_settings_by_name(files, tmp_path, capsys):
    bare, encoder = files
    words = ["sample", bare, "--encoder", encoder, "--settings", "pixeldit2-256", "--classes", "1,2", *FAST]
    assert main([*map(str, words), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3 steps, heun_exact, cfg 2.4 for t in 0.125 to 0.9" in printed and "PixelDiT2" in printed
    model = pc.load_checkpoint(bare, encoder=encoder)
    settings = {**pc.SETTINGS["pixeldit2-256"].to_dict(), "steps": 3, "size": (8, 8)}
    expected = pc.to_uint8(model, pc.sample(model, pc.class_condition(model, [2]), seeds=[0], **settings))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "2_0.png")), expected.numpy())


def test_without_its_encoder_a_class_is_not_sampled_and_no_class_is(files, tmp_path, capsys):
    bare, _ = files
    out = ("--out", tmp_path / "out")
    error = fails(capsys, "sample", bare, *FAST, *out)
    assert "bare.safetensors: this PixelDiT2 looks at its own input" in error and error.count("\n") == 1
    assert "was not given" in fails(capsys, "sample", bare, "--encoder", "none", "--classes", "1", *FAST, *out)
    words = ["sample", bare, "--encoder", "none", "--classes", "5", *FAST, *out]
    assert main([*map(str, words)]) == 0 and "5_0.png" in file_names(tmp_path / "out")


def test_an_encoder_for_another_family_is_refused(files, tiny_file, capsys):
    assert "has no encoder" in fails(capsys, "sample", tiny_file, "--encoder", files[1])


def test_evaluate_generates_with_settings_by_name_and_records_the_encoder(files, tmp_path, capsys):
    bare, encoder = files
    words = (bare, "--encoder", encoder, "--settings", "pixeldit2-512", "--count", 10, *FAST)
    assert evaluate(*words, "--out", tmp_path / "given") == 0
    record = json.loads((tmp_path / "given" / "run.json").read_text("utf-8"))
    text = json.dumps(record)
    assert "heun_exact" in text and '"cfg": 2.1' in text and "model.safetensors" in text
    whole = tmp_path / "whole.safetensors"
    assert main(["convert", str(bare), str(whole), "--encoder", str(encoder)]) == 0
    assert "inside" in capsys.readouterr().out
    assert evaluate(whole, *words[3:], "--out", tmp_path / "inside") == 0
    first, second = read(tmp_path / "given"), read(tmp_path / "inside")
    assert first.keys() == second.keys() and len(first) == 10
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert main(["evaluate", *map(str, words), "--encoder", str(whole), "--out", str(tmp_path / "given")]) == 2
    assert "has images of another run: checkpoint.encoder" in capsys.readouterr().err


def test_convert_leaves_the_encoder_out(files, tmp_path, capsys):
    whole, bare = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    pc.save_checkpoint(files[0], whole, encoder=files[1])
    assert main(["convert", str(whole), str(bare), "--encoder", "none", "--dtype", "bf16"]) == 0
    assert "not inside" in capsys.readouterr().out
    with safe_open(bare, "pt") as file:
        assert not any(key.startswith(PLACE) for key in file.keys())  # noqa: SIM118


def test_inspect_says_where_the_encoder_is_and_what_an_encoder_s_file_is(files, tmp_path, capsys):
    bare, encoder = files
    whole = pc.save_checkpoint(bare, tmp_path / "whole.safetensors", encoder=encoder)
    assert main(["inspect", str(bare), str(whole)]) == 0
    first, second = capsys.readouterr().out.split(str(whole))
    assert "not inside: a file of its own" in first and "not inside" not in second and "encoder" in second
    assert main(["inspect", "--json", str(whole), str(encoder)]) == 1
    inside, alone = json.loads(capsys.readouterr().out)
    assert inside["encoder"] is True and inside["params"]["hidden_size"] == TINY.hidden_size
    assert "DINOv3" in alone["title"] and "encoder" in alone["refused"]


@pytest.mark.parametrize("size", [256, 512])
def test_the_published_recipes_are_described_without_data_or_encoder(size, monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "tests")
    assert main(["train", str(ROOT / "recipes" / f"pixeldit2-imagenet-{size}.yaml"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "which is not there yet" in printed and "in the frozen encoder" in printed
    assert f"{size} x {size} pixels" in printed and "1,024 images for each step" in printed
    counts = {256: ("1,007,789,728", "21,596,160"), 512: ("1,073,696,416", "85,659,648")}[size]
    assert all(count in printed for count in counts)
