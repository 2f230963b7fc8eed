"""The script that trains the judge of the bundled models."""

import classifier
import numpy as np
import pytest
import torch
from PIL import Image

from pixeldit_core.evaluation import load_classifier


@pytest.fixture
def digits(tmp_path):
    """An image folder of a few plain digits: bars at ten positions."""
    folder = tmp_path / "digits"
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number in range(6):
            pixels = np.zeros((28, 28), np.uint8)
            pixels[2 * digit + 3 : 2 * digit + 7, 4 + number : 20 + number] = 255
            Image.fromarray(pixels).save(folder / str(digit) / f"{number}.png")
    return folder


def test_it_writes_a_classifier_and_its_held_out_accuracy(digits, tmp_path, capsys):
    out = tmp_path / "out" / "classifier.safetensors"
    classifier.main([str(digits), "--out", str(out), "--epochs", "1"])
    printed = capsys.readouterr().out
    assert "held-out images: " in printed and "of 10 correct" in printed and "| 9 | 1 |" in printed
    found, names = load_classifier(out)
    assert names == tuple("0123456789") and found.in_channels == 1 and found.image_size == (28, 28)


def test_the_images_are_read_as_they_are(tmp_path):
    for name, value in (("b", 7), ("a", 9)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (6, 4), (value, 0, 1)).save(tmp_path / name / "0.png")
    names = classifier.class_folders(tmp_path)
    images, labels = classifier.read_images(tmp_path, names)
    assert names == ["a", "b"] and labels.tolist() == [0, 1]
    assert images.shape == (2, 3, 4, 6) and images.dtype == torch.uint8
    assert images[:, :, 2, 3].tolist() == [[9, 0, 1], [7, 0, 1]]


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has 0 folders with images; expected at least two"):
        classifier.class_folders(tmp_path)
    for name, size in (("a", (4, 4)), ("b", (4, 5))):
        (tmp_path / name).mkdir()
        Image.new("L", size).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="all have to be of one size"):
        classifier.read_images(tmp_path, ["a", "b"])
