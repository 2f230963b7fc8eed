"""The classifier that judges the samples of the bundled models."""

import classifier
import numpy as np
import pytest
import torch
from classifier import Classifier, confusion_matrix, report, train_classifier
from helpers import MODELS
from PIL import Image

DIGITS = MODELS / "xpred-digits-28.safetensors"
NAMES = ("hot-air balloon", "sailboat", "mountain", *map(str, range(9)))


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
    classifier.main([str(DIGITS), "--data", str(digits), "--samples", "20", "--steps", "2"])
    printed = capsys.readouterr().out
    assert printed.startswith("held-out images: ") and "| all | 20 |" in printed and "| 9 | 2 |" in printed


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no images"):
        classifier.read_images(tmp_path, ["a"], 3)
