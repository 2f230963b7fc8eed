"""`sample`: images, settings, and mistakes in one readable line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import file_names
from PIL import Image

import pixeldit_core as pc
from pixeldit_core.cli import main
from pixeldit_core.cli import sample as cli_sample
from pixeldit_core.cli.options import parse_seeds, parse_size


def test_sample_writes_an_image_for_every_class_and_seed(tiny_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sample", str(tiny_file), "--classes", "3, tabby cat, 5", "--seeds", "0-1,9", "--out", str(out)]) == 0
    assert file_names(out) == sorted(["contact-sheet.png", *(f"{c}_{s}.png" for c in (3, 2, 5) for s in (0, 1, 9))])
    printed = capsys.readouterr().out
    assert (
        "9 images" in printed
        and "4 steps, ab2, cfg 2 for t in 0.1 to 0.9" in printed
        and "contact-sheet.png" in printed
    )

    model = pc.load_checkpoint(tiny_file)
    expected = pc.to_uint8(model, pc.sample(model, pc.class_condition(model, [2]), seeds=[9]))[0]
    image = Image.open(out / "2_9.png")
    assert np.array_equal(np.asarray(image), expected.numpy())
    assert json.loads(image.text["pixeldit"])["seed"] == 9
    sheet = Image.open(out / "contact-sheet.png")
    assert sheet.width == sheet.height == 3 * (16 * 8 + 4) + 4  # a row for each class, a column for each seed


def test_sample_takes_every_class_of_a_small_model_and_the_settings_of_the_file(tiny_file, tmp_path):
    assert main(["sample", str(tiny_file), "--out", str(tmp_path / "out")]) == 0
    assert len(file_names(tmp_path / "out")) == 12 + 1


def test_options_override_single_values_of_settings(tiny_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = [
        "sample",
        str(tiny_file),
        "--classes",
        "0",
        "--out",
        out,
        "--settings",
        "imagenet512",
        "--size",
        "24x16",
    ]
    arguments += ["--steps", "3", "--solver", "heun", "--cfg-interval", "0.2", "0.8", "--device", "cpu"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 steps, heun, cfg 3.5 for t in 0.2 to 0.8, timeshift 2, 24 x 16 pixels" in printed
    assert Image.open(tmp_path / "out" / "0_0.png").size == (24, 16)
    expected = pc.load_checkpoint(tiny_file)
    x = pc.sample(
        expected,
        pc.class_condition(expected, 0),
        seeds=0,
        size=(16, 24),
        steps=3,
        solver="heun",
        cfg=3.5,
        timeshift=2.0,
        cfg_interval=(0.2, 0.8),
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "0_0.png")), pc.to_uint8(expected, x)[0].numpy())


def test_sample_follows_the_reference_convention_on_request_and_writes_gray_images(tmp_path):
    params = pc.FAMILIES["xpred_mmdit"].params(
        dim=16, depth=1, heads=2, dim_head=8, in_channels=1, num_registers=2, image_size=12
    )
    model = pc.build_model("xpred_mmdit", params, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in model.network.parameters():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    model.spec = replace(model.spec, class_names=[(digit,) for digit in "0123456789"])
    path = pc.save_checkpoint(model, tmp_path / "gray.safetensors")
    settings = ["--settings", "xpred", "--steps", "5", "--timeshift", "2", "--classes", "3", "--seeds", "7"]
    for convention in ("standard", "reference"):
        out = tmp_path / convention
        assert main(["sample", str(path), *settings, "--convention", convention, "--out", str(out)]) == 0
        image = Image.open(out / "3_7.png")
        x = pc.sample(
            model,
            pc.class_condition(model, "3"),
            seeds=7,
            steps=5,
            solver="euler",
            cfg=3.0,
            timeshift=2.0,
            cfg_interval=(0.1, 1.0),
            convention=convention,
        )
        assert image.mode == "L" and image.size == (12, 12)
        assert np.array_equal(np.asarray(image), pc.to_uint8(model, x, convention)[0, ..., 0].numpy())
        assert json.loads(image.text["pixeldit"])["convention"] == convention
    standard, reference = ((tmp_path / convention / "3_7.png").read_bytes() for convention in ("standard", "reference"))
    assert standard != reference


def test_an_image_does_not_depend_on_the_batch_and_is_replaced_by_a_later_run(tiny_file, tmp_path):
    for folder, size in (("one", "1"), ("five", "5")):
        out = tmp_path / folder
        out.mkdir()
        (out / "0_0.png").write_bytes(b"half of a file")
        (out / "mine.txt").write_text("stays")
        assert main(["sample", str(tiny_file), "--seeds", "0-1", "--batch-size", size, "--out", str(out)]) == 0
        assert (out / "mine.txt").read_text() == "stays"
    names = [name for name in file_names(tmp_path / "one") if name.endswith(".png")]
    assert len(names) == 24 + 1
    for name in names:
        one, five = (np.asarray(Image.open(tmp_path / folder / name)) for folder in ("one", "five"))
        assert np.array_equal(one, five), name


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.safetensors"], "nowhere.safetensors: there is no such file"),
        (["{file}", "--classes", "tabbi"], 'class "tabbi" is not known. Did you mean "2: tabby"?'),
        (["{file}", "--classes", "crane"], '"4: crane", "5: crane"'),
        (["{file}", "--classes", "13"], "13 is out of range: this checkpoint has 12 classes"),
        (["{file}", "--classes", " , "], "the list of classes is empty"),
        (["{file}", "--size", "18x16"], "nearest that does is 16 x 16"),
        (["{file}", "--steps", "0"], "steps is 0; at least 1 is needed"),
        (["{file}", "--timeshift", "0"], "timeshift is 0"),
        (["{file}", "--cfg-interval", "0.9", "0.1"], "the guidance interval is 0.9 to 0.1"),
        (["{file}", "--weights", "ema"], "has no ema weights, only raw"),
        (["{file}", "--device", "nonsense"], 'device "nonsense" cannot be used here'),
        (["{file}", "--out", "{file}"], "exists"),
    ],
)
def test_mistakes_are_one_readable_line(tiny_file, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = file_names(tmp_path)
    assert main(["sample", *(text.format(file=tiny_file) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert file_names(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "a"],
        ["--seeds", "5-2"],
        ["--size", "big"],
        ["--batch-size", "0"],
        ["--dtype", "fp64"],
        ["--settings", "nonsense"],
        ["--solver", "nonsense"],
    ],
)
def test_invalid_values_are_refused(tiny_file, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(tiny_file), *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_settings_of_a_file_without_any(tiny, tmp_path, capsys):
    model = tiny()
    model.spec = replace(model.spec, settings=None)
    path = pc.save_checkpoint(model, tmp_path / "bare.safetensors")
    assert main(["sample", str(path), "--settings", "checkpoint default", "--out", str(tmp_path / "out")]) == 2
    assert "bare.safetensors has no settings in its metadata" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_reported_and_nothing_is_written(tiny, tmp_path, capsys):
    model = tiny()
    model.network.final_layer.linear.bias.data[0] = float("nan")
    path = pc.save_checkpoint(model, tmp_path / "nan.safetensors")
    assert main(["sample", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("not finite") == 1 and "nan.safetensors" in error
    assert file_names(tmp_path / "out") == []


def test_too_little_memory_is_one_readable_line(tiny_file, tmp_path, capsys):
    assert main(["sample", str(tiny_file), "--size", "10000000", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory. Try --batch-size 1")


@pytest.mark.parametrize("dtype, says", [("fp16", True), ("bf16", True), ("fp32", False)])
def test_a_dtype_that_the_cpu_emulates_is_said(tiny_file, tmp_path, monkeypatch, capsys, dtype, says):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"}, raising=False)
    arguments = ["sample", str(tiny_file), "--steps", "1", "--classes", "0", "--dtype", dtype, "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert ("emulates" in capsys.readouterr().err) == says


def test_seeds_and_sizes():
    assert parse_seeds("0-3, 7 9;7") == [0, 1, 2, 3, 7, 9]
    assert parse_seeds("5 - 6") == [5, 6]
    assert parse_size("320x256") == (256, 320)
    assert parse_size("64") == (64, 64)


def test_a_size_far_from_the_trained_one_is_reported(tiny_file, tmp_path, capsys):
    for size, reported in {"16x16": False, "32x16": True}.items():
        assert main(["sample", str(tiny_file), "--classes", "1", "--size", size, "--out", str(tmp_path / size)]) == 0
        assert ("is far from every size that the model was trained on" in capsys.readouterr().out) == reported


def test_the_bundled_model_shows_twelve_classes_in_columns_and_two_seeds(tmp_path, capsys):
    assert main(["sample", "--steps", "1", "--out", str(tmp_path)]) == 0
    assert len(file_names(tmp_path)) == 24 + 1
    assert "fox" in (printed := capsys.readouterr().out) and "rocket" in printed and "0, 1" in printed
    sheet = np.asarray(Image.open(tmp_path / "contact-sheet.png"))
    assert sheet.shape == (2 * 100 + 4, 12 * 100 + 4, 3)
    for seed in range(2):  # of a fox, the first class
        image = np.asarray(Image.open(tmp_path / f"108_{seed}.png"))
        assert np.array_equal(sheet[4 + 100 * seed :][:96, 4:100], image)


def test_the_bundled_model_is_the_default_and_its_absence_is_reported(tmp_path, monkeypatch, capsys):
    arguments = ["sample", "--classes", "fox", "--steps", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert Image.open(tmp_path / "108_0.png").size == (96, 96)
    monkeypatch.setattr(cli_sample, "BUNDLED_MODEL", tmp_path / "gone.safetensors")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "bundled model not found at" in error and "pass a checkpoint" in error
