"""The ink look: two colors, more ink where an image has more color; and a folder of it made with the model."""

import numpy as np
from ink import INK, PAPER, ink, main
from PIL import Image, ImageDraw


def disc(size=96):
    """A red disc on a soft color."""
    image = Image.new("RGB", (size, size), (214, 233, 252))
    ImageDraw.Draw(image).ellipse((size // 4, size // 4, 3 * size // 4, 3 * size // 4), fill=(220, 40, 30))
    return image


def drawn(image, seed=1):
    return np.asarray(ink(image, np.random.default_rng(seed))).astype(float)


def test_colors_are_between_paper_and_ink():
    paper, blue = np.array(PAPER, dtype=float), np.array(INK, dtype=float)
    amount = (drawn(disc()) - paper) / (blue - paper)
    assert (np.ptp(amount, axis=2)).max() < 0.04
    assert 0.1 < amount.mean() < 0.4 and (amount > 0.6).mean() > 0.1  # paper, with ink on it


def test_the_background_is_paper_and_more_color_is_more_ink():
    image = disc()
    ImageDraw.Draw(image).rectangle((36, 36, 46, 60), fill=(150, 160, 170))
    ImageDraw.Draw(image).rectangle((50, 36, 60, 60), fill=(255, 255, 255))
    row = drawn(image)[48].mean(1)
    background, red, gray, white = (
        row[part].mean() for part in (slice(16), slice(28, 34), slice(38, 45), slice(52, 59))
    )
    assert abs(background - np.mean(PAPER)) < 0.01 and abs(white - np.mean(PAPER)) < 0.01
    assert background - 30 > gray > red + 30


def test_grain_comes_from_its_generator():
    first, second, other = (drawn(disc(), seed) for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_the_folder_has_images_by_class(tmp_path):
    for folder in ("a", "b"):
        main([str(tmp_path / folder), "--count", "3", "--seed", "7"])
    files = sorted((tmp_path / "a").rglob("*.png"), key=lambda path: path.name)
    assert [f"{path.parent.name}/{path.name}" for path in files] == [
        "Christmas tree/0000007.png", "bouquet/0000008.png", "circus tent/0000009.png"
    ]  # fmt: skip
    for path in files:
        image = np.asarray(Image.open(path))
        assert image.shape == (96, 96, 3) and image.mean() > 150
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / "b" / path.parent.name / path.name)))
