"""The chalk look: two colors, lines where the image has edges; and a folder of it made with the bundled model."""

import numpy as np
from chalk import BOARD, CHALK, chalk, main
from PIL import Image, ImageDraw


def disc(size=96):
    """A red disc on a soft color."""
    image = Image.new("RGB", (size, size), (214, 233, 252))
    ImageDraw.Draw(image).ellipse((size // 4, size // 4, 3 * size // 4, 3 * size // 4), fill=(220, 40, 30))
    return image


def drawn(image, seed=1):
    return np.asarray(chalk(image, np.random.default_rng(seed))).astype(float)


def test_colors_are_between_board_and_chalk():
    board, white = np.array(BOARD, dtype=float), np.array(CHALK, dtype=float)
    amount = (drawn(disc()) - board) / (white - board)
    assert (np.ptp(amount, axis=2)).max() < 0.04
    assert amount.mean() < 0.4 and (amount > 0.6).mean() > 0.02  # a dark board, with lines


def test_the_line_is_at_the_edge_and_the_area_between_line_and_board():
    row = drawn(disc())[48].mean(1)
    background, edge, inside = row[:16].mean(), row[20:28].max(), row[40:56].mean()
    assert abs(background - np.mean(BOARD)) < 1
    assert background + 30 < inside < edge - 50


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
        assert image.shape == (96, 96, 3) and image.mean() < 150
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / "b" / path.parent.name / path.name)))
