"""The digits: the same for the same seed, with MNIST's measures, and told apart by a plain classifier."""

import pytest
import torch

from pixeldit_core.training.digits import HANDS, draw_digits


@pytest.fixture(scope="module")
def digits():
    pictures, labels = draw_digits(0, 3000)
    return pictures, labels


def test_same_seed_same_digits(digits):
    pictures, labels = digits
    again, same = draw_digits(0, 3000)
    assert torch.equal(pictures, again) and torch.equal(labels, same)
    assert not torch.equal(pictures[:100], draw_digits(1, 100)[0])


def test_a_generator_goes_on_where_it_was():
    rng = torch.Generator().manual_seed(3)
    first, second = draw_digits(rng, 40)[0], draw_digits(rng, 40)[0]
    assert torch.equal(first, draw_digits(3, 40)[0]) and not torch.equal(first, second)


@pytest.mark.parametrize("count", [0, 1, 257])
def test_any_count(count):
    pictures, labels = draw_digits(0, count)
    assert pictures.shape == (count, 1, 28, 28) and pictures.dtype == torch.uint8
    assert labels.tolist() == [i % 10 for i in range(count)] and labels.dtype == torch.int64


def test_white_ink_on_black_as_much_as_in_mnist(digits):
    gray = digits[0][:, 0] / 255
    assert 0.10 < gray.mean() < 0.16  # MNIST: 0.131
    assert 0.10 < (gray > 0.5).float().mean() < 0.20
    assert (gray.amax((1, 2)) > 0.7).all() and (gray == 0).float().mean() > 0.7
    assert ((gray > 0.1) & (gray < 0.9)).float().mean() > 0.03  # soft edges


def test_digits_fill_the_box_and_are_centred_by_mass(digits):
    gray = digits[0][:, 0] / 255
    rows, columns = gray.sum(2), gray.sum(1)
    places = torch.arange(28) - 13.5
    for ink in (rows, columns):
        assert ((ink @ places) / ink.sum(1)).abs().mean() < 0.6
        assert ink[:, 0].max() == ink[:, -1].max() == 0  # nothing is cut off
    longer = torch.maximum((rows > 0.5).sum(1), (columns > 0.5).sum(1)).float()
    assert 17 < longer.mean() < 22 and longer.min() >= 15


def test_every_digit_has_several_hands_and_no_two_are_alike(digits):
    assert len(HANDS) == 10 and all(len(hands) >= 4 for hands in HANDS)
    assert len(digits[0].flatten(1).unique(dim=0)) == 3000


def test_classes_are_distinct(digits):
    """The nearest class mean of 2,000 digits names most of 1,000 others right, the nearest of the 2,000 nearly all."""
    pixels, labels = digits[0].flatten(1) / 255, digits[1]
    known, fresh = pixels[:2000], pixels[2000:]
    means = torch.stack([known[labels[:2000] == k].mean(0) for k in range(10)])
    by_mean = torch.cdist(fresh, means).argmin(1)
    by_neighbour = labels[:2000][torch.cdist(fresh, known).argmin(1)]
    assert (by_mean == labels[2000:]).float().mean() > 0.85
    assert (by_neighbour == labels[2000:]).float().mean() > 0.95
