"""The digits: the same for the same seed, with MNIST's proportions, and separable by a plain classifier."""

import numpy as np
import pytest
import torch
from digits import HANDS, draw_digits, main
from helpers import MODELS
from PIL import Image

import pixeldit_core as pc

MODEL = MODELS / "xpred-digits-28.safetensors"


@pytest.fixture(scope="module")
def digits():
    images, labels = draw_digits(0, 3000)
    return images, labels


def test_same_seed_same_digits(digits):
    images, labels = digits
    again, same = draw_digits(0, 3000)
    assert torch.equal(images, again) and torch.equal(labels, same)
    assert not torch.equal(images[:100], draw_digits(1, 100)[0])


def test_a_generator_continues_where_it_was():
    rng = torch.Generator().manual_seed(3)
    first, second = draw_digits(rng, 40)[0], draw_digits(rng, 40)[0]
    assert torch.equal(first, draw_digits(3, 40)[0]) and not torch.equal(first, second)


@pytest.mark.parametrize("count", [0, 1, 257])
def test_any_count(count):
    images, labels = draw_digits(0, count)
    assert images.shape == (count, 1, 28, 28) and images.dtype == torch.uint8
    assert labels.tolist() == [i % 10 for i in range(count)] and labels.dtype == torch.int64


def test_white_ink_on_black_as_much_as_in_mnist(digits):
    gray = digits[0][:, 0] / 255
    assert 0.10 < gray.mean() < 0.16  # MNIST: 0.131
    assert 0.10 < (gray > 0.5).float().mean() < 0.20
    assert (gray.amax((1, 2)) > 0.7).all() and (gray == 0).float().mean() > 0.7
    assert ((gray > 0.1) & (gray < 0.9)).float().mean() > 0.03  # soft edges


def test_digits_fill_the_box_and_are_centered_by_mass(digits):
    gray = digits[0][:, 0] / 255
    rows, columns = gray.sum(2), gray.sum(1)
    positions = torch.arange(28) - 13.5
    for ink in (rows, columns):
        assert ((ink @ positions) / ink.sum(1)).abs().mean() < 0.6
        assert ink[:, 0].max() == ink[:, -1].max() == 0  # nothing is cut off
    longer = torch.maximum((rows > 0.5).sum(1), (columns > 0.5).sum(1)).float()
    assert 17 < longer.mean() < 22 and longer.min() >= 15


def test_every_digit_has_several_hands_and_no_two_are_alike(digits):
    assert len(HANDS) == 10 and all(len(hands) >= 4 for hands in HANDS)
    assert len(digits[0].flatten(1).unique(dim=0)) == 3000


def test_classes_are_distinct(digits):
    """The nearest class mean of 2,000 digits names most of 1,000 others right, the nearest of the 2,000 nearly all."""
    pixels, labels = digits[0].flatten(1) / 255, digits[1]
    train, test = pixels[:2000], pixels[2000:]
    means = torch.stack([train[labels[:2000] == k].mean(0) for k in range(10)])
    by_mean = torch.cdist(test, means).argmin(1)
    by_neighbor = labels[:2000][torch.cdist(test, train).argmin(1)]
    assert (by_mean == labels[2000:]).float().mean() > 0.85
    assert (by_neighbor == labels[2000:]).float().mean() > 0.95


def test_the_folder_has_a_gray_image_of_each_digit_in_turn(tmp_path):
    main([str(tmp_path), "--count", "25", "--seed", "4"])
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 25 and files[0] == tmp_path / "0" / "000000.png"
    image = Image.open(tmp_path / "7" / "000017.png")
    assert image.mode == "L" and np.array_equal(np.asarray(image), draw_digits(4, 25)[0][17, 0].numpy())


def test_the_bundled_digits_look_like_drawn_ones():
    """Nine of ten samples have, among a thousand drawn digits, a nearest one of their class."""
    model = pc.load_checkpoint(MODEL)
    labels = torch.arange(10).repeat_interleave(6)
    samples = pc.to_uint8(
        model, pc.sample(model, pc.class_condition(model, labels.tolist()), seeds=range(60), steps=10)
    )
    assert samples.shape == (60, 28, 28, 1)
    drawn, classes = draw_digits(5, 1000)
    distances = torch.cdist(samples.flatten(1).float(), drawn.flatten(1).float())
    assert (classes[distances.argmin(dim=1)] == labels).float().mean() >= 0.9
