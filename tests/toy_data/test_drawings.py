"""The drawings: the same for the same seed, well formed, and of distinct classes."""

import hashlib

import numpy as np
import pytest
from brush import PALETTES
from drawings import CLASS_NAMES, draw, main, save_drawings
from helpers import MODELS
from PIL import Image

import pixeldit_core as pc

MODEL = MODELS / "pixeldit-drawings-64.safetensors"
every_class = pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)


def pixels(label, seed, size=64):
    return np.asarray(draw(label, seed, size))


@every_class
def test_same_seed_same_drawing(label):
    assert np.array_equal(pixels(label, 7), pixels(label, 7))
    assert not np.array_equal(pixels(label, 7), pixels(label, 8))


MEANS = [
    (180, 161, 194),
    (162, 155, 216),
    (208, 142, 144),
    (122, 186, 196),
    (135, 159, 158),
    (115, 125, 157),
    (178, 193, 186),
    (217, 156, 142),
    (210, 144, 75),
    (105, 140, 135),
    (80, 120, 136),
    (170, 126, 134),
]


@every_class
def test_a_drawing_does_not_change_with_the_code(label):
    """Mean red, green and blue: the pixels themselves depend on the version of Pillow."""
    assert np.abs(pixels(label, 7).mean((0, 1)) - MEANS[label]).max() < 1


@every_class
def test_shape_type_and_range(label):
    image = pixels(label, 3)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert image.min() < 110 and image.max() > 180  # something dark and something light: not an empty image


def test_other_sizes_show_the_same_scene():
    small, large = pixels(0, 1).astype(float), pixels(0, 1, size=128).astype(float)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 4


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="12"):
        draw(12, 0)


def test_palettes_are_complete():
    assert 5 <= len(PALETTES) <= 8
    assert all(len(p.sky) == 2 and len(p.land) == 3 and len(p.accents) == 4 for p in PALETTES)


def test_classes_are_distinct():
    """The nearest class mean of luminance alone, without color, already separates most drawings."""
    labels = np.arange(720) % 12
    gray = np.stack([pixels(index % 12, index // 12).astype(np.float32).mean(2).ravel() for index in range(720)])
    gray -= gray.mean(1, keepdims=True)
    gray /= np.linalg.norm(gray, axis=1, keepdims=True)
    means = np.stack([gray[:480][labels[:480] == k].mean(0) for k in range(12)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert (np.argmax(gray[480:] @ means.T, 1) == labels[480:]).mean() > 0.5


def test_the_folder_has_every_class_in_turn_and_each_drawing_once(tmp_path):
    main([str(tmp_path), "--count", "71", "--seed", "100", "--workers", "0"])
    files = sorted(tmp_path.rglob("*.png"))
    assert {path.parent.name for path in files} == set(CLASS_NAMES) and len(files) == 71
    names = sorted(path.name for path in (tmp_path / "house").iterdir())
    assert names == [f"00001{number:02}.png" for number in range(6)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "house" / "0000103.png")), pixels(7, 103))
    assert len({hashlib.sha1(np.asarray(Image.open(path)).tobytes()).digest() for path in files}) == 71
    assert not (tmp_path / "umbrella" / "0000105.png").exists()  # number 71 would be its sixth


def test_processes_write_the_same_files(tmp_path):
    for workers in (0, 2):
        save_drawings(tmp_path / str(workers), 15, seed=5, size=16, workers=workers)
    first, second = (sorted((tmp_path / str(workers)).rglob("*.png")) for workers in (0, 2))
    assert len(first) == 15 and [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_bundled_model_has_these_classes():
    model = pc.load_checkpoint(MODEL)
    assert [entry[0] for entry in model.class_names] == list(CLASS_NAMES)
