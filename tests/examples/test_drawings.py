"""The drawings: the same for the same seed, well formed, and of distinct classes."""

import hashlib

import numpy as np
import pytest

from pixeldit_core.training.brush import PALETTES
from pixeldit_core.training.drawings import CLASS_NAMES, cached_drawings, draw, draw_many

every_class = pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)


@every_class
def test_same_seed_same_picture(label):
    assert np.array_equal(draw(label, 7), draw(label, 7))
    assert not np.array_equal(draw(label, 7), draw(label, 8))


@every_class
def test_shape_type_and_range(label):
    picture = draw(label, 3)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert picture.min() < 110 and picture.max() > 180  # something dark and something light: not an empty page


def test_other_sizes_show_the_same_scene():
    small, large = draw(0, 1).astype(float), draw(0, 1, size=128).astype(float)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 4


def test_there_are_12_to_16_named_classes():
    assert 12 <= len(CLASS_NAMES) == len(set(CLASS_NAMES)) <= 16


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="12"):
        draw(12, 0)


def test_palettes_are_complete():
    assert 5 <= len(PALETTES) <= 8
    assert all(len(p.sky) == 2 and len(p.land) == 3 and len(p.accents) == 4 for p in PALETTES)


def test_classes_go_round_and_all_pictures_differ():
    pictures, labels = draw_many(72, seed=100)
    assert labels.tolist() == list(range(12)) * 6
    assert len({hashlib.sha1(p.tobytes()).digest() for p in pictures}) == 72


def test_classes_are_distinct():
    """The nearest class mean of luminance alone, without color, already tells most drawings apart."""
    pictures, labels = draw_many(720, seed=0)
    gray = pictures.astype(np.float32).mean(3).reshape(720, -1)
    gray -= gray.mean(1, keepdims=True)
    gray /= np.linalg.norm(gray, axis=1, keepdims=True)
    means = np.stack([gray[:480][labels[:480] == k].mean(0) for k in range(12)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert (np.argmax(gray[480:] @ means.T, 1) == labels[480:]).mean() > 0.5


def test_cache_is_read_back_and_redrawn_when_it_does_not_fit(tmp_path):
    path = tmp_path / "deep" / "pool.npy"
    first, labels = cached_drawings(path, 24, 5, 64, 0)
    again, same = cached_drawings(path, 24, 5, 64, 0)
    assert np.array_equal(first, again) and np.array_equal(labels, same)
    assert len(cached_drawings(path, 12, 5, 64, 0)[0]) == 12
    assert np.array_equal(cached_drawings(path, 12, 6, 64, 0)[0], draw_many(12, 6)[0])
