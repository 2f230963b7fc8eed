"""The chalk look: the same for the same seed, of few colors, and of the same scenes as the drawings."""

import hashlib

import numpy as np
import pytest
from chalk import BOARD, CHALK, chalk, draw_chalk, main
from drawings import CLASS_NAMES, draw
from PIL import Image


def pixels(label, seed, size=64):
    return np.asarray(draw_chalk(label, seed, size)).astype(float)


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_same_seed_same_image_of_the_look(label):
    image = pixels(label, 500)
    assert np.array_equal(image, pixels(label, 500)) and not np.array_equal(image, pixels(label, 501))
    assert image.shape == (64, 64, 3)
    board, chalk_color = np.array(BOARD, dtype=float), np.array(CHALK, dtype=float)
    amount = ((image - board) / (chalk_color - board)).clip(0, 1)
    assert (np.ptp(amount, axis=2)).max() < 0.04  # between board and chalk, nothing else
    assert amount.mean() < 0.4 and (amount > 0.6).mean() > 0.02  # a dark board, with lines
    assert abs(image - np.asarray(draw(label, 500)).astype(float)).mean() > 40  # far from the usual look


def test_lines_are_where_the_drawing_has_edges():
    image, drawing = pixels(7, 500).mean(2), np.asarray(draw(7, 500)).astype(float)
    edges = np.maximum(abs(np.diff(drawing, axis=0)).max(2)[:, :-1], abs(np.diff(drawing, axis=1)).max(2)[:-1])
    inner = image[:-1, :-1]
    assert inner[edges > 60].mean() > inner[edges < 8].mean() + 50


def test_grain_comes_from_its_generator():
    drawing = draw(0, 1, 128)
    first, second, other = (np.asarray(chalk(drawing, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_the_folder_has_twenty_images_by_class(tmp_path):
    main([str(tmp_path), "--size", "16"])
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 20 and {path.parent.name for path in files} == set(CLASS_NAMES)
    assert [path.name for path in sorted((tmp_path / "house").iterdir())] == ["0000500.png", "0000501.png"]
    assert len({hashlib.sha1(np.asarray(Image.open(path)).tobytes()).digest() for path in files}) == 20
    assert np.array_equal(np.asarray(Image.open(tmp_path / "moon" / "0000500.png")), pixels(10, 500, 16))
