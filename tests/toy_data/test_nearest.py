"""Nearest training images of samples: distances, classes and styles, and the sheet."""

import json

import nearest
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 6


def write(path, value, label=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    note = PngInfo()
    if label is not None:
        note.add_text("pixeldit", json.dumps({"index": 0, "entry": label, "seed": 0}))
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path, pnginfo=note)


@pytest.fixture
def folders(tmp_path):
    """Two classes, each with two styles; of one class two samples near its flat style, of the other two far off."""
    for name, values in {"fox": (0, 100), "raccoon": (200, 250)}.items():
        for number, value in enumerate(values):
            write(tmp_path / "data" / name / f"{number:05}.png", value)
    for number, (value, label) in enumerate([(100, 0), (210, 0), (90, 0), (240, 1), (250, 1)]):
        write(tmp_path / "samples" / "000" / f"{number:06}.png", value, label)
    return tmp_path


def test_distances_classes_and_styles(folders, capsys):
    nearest.main([str(folders / "samples"), str(folders / "data"), "--new", str(folders / "data")])
    samples, new = capsys.readouterr().out.splitlines()
    mean = (0 + 10 + 10 + 10 + 0) / 5 / 255
    assert samples == (
        f"samples: 5 images, nearest training image {mean:.3f} (least 0.000, most {10 / 255:.3f}), "
        "of the same class 80.0%; 3d 20%, flat 80%"
    )
    assert new.startswith(
        "new: 4 images, nearest training image 0.000 (least 0.000, most 0.000), of the same class 100.0%"
    )


def test_the_nearest_is_found_in_every_chunk(folders, monkeypatch):
    monkeypatch.setattr(nearest, "_CHUNK", 2)
    samples, training = (
        nearest.read_samples(folders / "samples"),
        nearest.read_folders(folders / "data", ["fox", "raccoon"]),
    )
    distances, index = nearest.find_nearest(samples, training)
    assert index.tolist() == [1, 2, 1, 3, 3]
    assert distances.tolist() == pytest.approx([0, 10 / 255, 10 / 255, 10 / 255, 0], abs=1e-4)


def test_the_sheet_has_a_sample_its_nearest_and_another_sample(folders):
    file = folders / "sheet.png"
    options = ["--sheet", str(file), "--classes", "raccoon", "fox", "--columns", "1"]
    nearest.main([str(folders / "samples"), str(folders / "data"), *options])
    with Image.open(file) as image:
        cells = [[image.getpixel((4 + 10 * x + 2, 4 + 10 * y + 2))[0] for x in range(3)] for y in range(2)]
    assert cells == [[240, 250, 250], [100, 100, 210]]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda root: write(root / "samples" / "x.png", 1), "x.png is no image of `python -m pixeldit_core evaluate`"),
        (lambda root: Image.new("RGB", (3, 3)).save(root / "data" / "fox" / "z.png"), "differ in size"),
        (lambda root: [path.unlink() for path in root.glob("data/*/*.png")], "there are no .png files"),
    ],
)
def test_what_does_not_fit_is_named(folders, capsys, spoil, message):
    spoil(folders)
    with pytest.raises(SystemExit, match="1"):
        nearest.main([str(folders / "samples"), str(folders / "data")])
    assert message in capsys.readouterr().err


def test_an_unknown_class_of_the_sheet_is_named(folders, capsys):
    with pytest.raises(SystemExit, match="1"):
        nearest.main([str(folders / "samples"), str(folders / "data"), "--sheet", "s.png", "--classes", "wolf"])
    assert "there is no class wolf" in capsys.readouterr().err
