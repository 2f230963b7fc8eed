"""The bundled files: small, complete, and trained by one command."""

import numpy as np
import pytest
import torch
from helpers import MODELS
from PIL import Image

import pixeldit_core as pc
from pixeldit_core.training import classifier
from pixeldit_core.training.__main__ import main
from pixeldit_core.training.bundled import BUNDLED
from pixeldit_core.training.classifier import Classifier, confusion_matrix, report, train_classifier

FILES = {"drawings": MODELS / "pixeldit-drawings-64.safetensors", "digits": MODELS / "xpred-digits-28.safetensors"}
LARGEST = {"drawings": 8_000_000, "digits": 3_000_000}
NAMES = BUNDLED["drawings"].class_names
each_model = pytest.mark.parametrize("name", FILES)


@each_model
def test_the_file_is_small(name):
    assert FILES[name].stat().st_size <= LARGEST[name]


@each_model
def test_the_file_has_its_params_class_names_and_settings(name):
    model, bundled = pc.load_checkpoint(FILES[name]), BUNDLED[name]
    assert model.family.name == bundled.family
    built = bundled.build()
    assert {key: value.shape for key, value in model.network.state_dict().items()} == {
        key: value.shape for key, value in built.network.state_dict().items()
    }
    assert model.params.patch_size == bundled.params.patch_size and model.params.num_classes == len(bundled.class_names)
    assert [entry[0] for entry in model.class_names] == list(bundled.class_names)
    assert model.settings == bundled.settings
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_a_sample_is_an_image_and_repeats():
    model = pc.load_checkpoint(FILES["drawings"])
    condition = pc.class_condition(model, ["fish", 8])
    first, again = (pc.to_uint8(model, pc.sample(model, condition, seeds=[1, 2])) for _ in range(2))
    assert first.shape == (2, 64, 64, 3) and np.array_equal(first, again)
    assert np.abs(np.diff(np.asarray(first, float), axis=1)).mean() < 20  # flat areas, not noise: noise has some 80
    assert np.asarray(first).std() > 25


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """An image folder of a few plain digits: bars at ten positions."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number in range(6):
            pixels = np.zeros((28, 28), np.uint8)
            pixels[2 * digit + 3 : 2 * digit + 7, 4 + number : 20 + number] = 255
            Image.fromarray(pixels).save(folder / str(digit) / f"{number}.png")
    return folder


def test_the_command_lowers_the_loss_and_writes_a_file_that_loads(digits, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pixeldit_core.training.__main__._LOG_EVERY", 10)
    caplog.set_level("INFO")
    out = tmp_path / "new" / "digits.safetensors"
    run = ["--steps", "20", "--batch-size", "8", "--no-compile", "--no-bfloat16", "--learning-rate", "0.01"]
    main(["--model", "digits", "--data", str(digits), "--out", str(out), *run])
    first, last = (float(line.split("loss ")[1].split(",")[0]) for line in caplog.messages if "loss" in line)
    assert last < 0.8 * first
    model = pc.load_checkpoint(out)
    assert model.family.name == "xpred_pixeldit" and model.settings == BUNDLED["digits"].settings
    assert [entry[0] for entry in model.class_names] == list("0123456789")
    x = pc.sample(model, pc.class_condition(model, "3"), seeds=0, steps=2)
    assert x.shape == (1, 1, 28, 28)


@pytest.mark.parametrize("option", ["--model", "--data", "--out", "--seed", "--steps"])
def test_help_explains_the_command(option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and option in capsys.readouterr().out


def test_report_counts_what_was_correct():
    matrix = 10 * torch.eye(len(NAMES), dtype=torch.int64)
    matrix[0, 0], matrix[0, 2] = 8, 2
    text = report(matrix, NAMES)
    assert "| hot-air balloon | 10 | 80.0% | mountain 2 |" in text
    assert "| all | 120 | 98.3% | |" in text


def test_the_classifier_counts_every_image_once():
    images = torch.randint(0, 256, (300, 16, 16, 3), dtype=torch.uint8)
    matrix = confusion_matrix(torch.arange(300) % 12, Classifier(12).predict(images), 12)
    assert matrix.sum() == 300 and matrix.sum(1).tolist() == [25] * 12
    assert confusion_matrix(torch.tensor([1]), torch.tensor([2]), 3).nonzero().tolist() == [[1, 2]]


def test_the_classifier_learns_and_counts_a_checkpoint_s_samples(digits, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "train_classifier", lambda *data: train_classifier(*data, epochs=1))
    classifier.main([str(FILES["digits"]), "--data", str(digits), "--samples", "20", "--steps", "2"])
    printed = capsys.readouterr().out
    assert printed.startswith("held-out images: ") and "| all | 20 |" in printed and "| 9 | 2 |" in printed
