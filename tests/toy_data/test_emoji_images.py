"""The emoji: names and code points, and images made of tiny packages: the same for the same seed, in class folders."""

import json
import sys

import emoji_images
import numpy as np
import pytest
from emoji_images import ORIGINAL, PACKAGES, DataSet, main
from emoji_names import NOT_MIRRORED, concepts
from helpers import ROOT
from PIL import Image

from pixeldit_core.training import read_recipe

FOX, RACCOON = ("fox", "1f98a"), ("raccoon", "1f99d")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="16" height="32" fill="#ff0000"/></svg>'
COLORS = {"3d": (200, 0, 0, 255), "flat": (0, 0, 200, 255)}


@pytest.fixture
def packages(tmp_path):
    """The two packages of Fluent with a fox and a raccoon: their left half has a color, the rest is transparent."""
    root = tmp_path / "node_modules"
    for style, color in COLORS.items():
        assets = root / PACKAGES[style] / "assets"
        assets.mkdir(parents=True)
        (assets.parent / "package.json").write_text("{}")
        image = Image.new("RGBA", (64, 64))
        image.paste(color, (0, 0, 32, 64))
        for _, code in (FOX, RACCOON):
            image.save(assets / f"{code}.webp", lossless=True)
    return root


@pytest.fixture(autouse=True)
def only_two_concepts(monkeypatch):
    monkeypatch.setattr(emoji_images, "concepts", lambda *, best: dict([FOX] if best else [FOX, RACCOON]))


def make(packages, out, *words):
    main([str(packages), str(out), "--workers", "0", "--count", "6", *words])
    return {str(path.relative_to(out)): np.asarray(Image.open(path)) for path in sorted(out.rglob("*.png"))}


def test_class_folders_with_numbered_images(packages, tmp_path):
    images = make(packages, tmp_path / "a")
    assert list(images) == [f"{name}/{number:05}.png" for name in ("fox", "raccoon") for number in range(12)]
    assert all(image.shape == (96, 96, 3) and image.dtype == np.uint8 for image in images.values())
    assert len({image.tobytes() for image in images.values()}) == 24


def test_styles_take_turns(packages, tmp_path):
    for name, image in make(packages, tmp_path / "a").items():
        reds = np.array(COLORS["flat" if int(name[-5]) % 2 else "3d"][:3])
        assert (abs(image.astype(int) - reds).max(2) < 3).sum() > 1000, name
    single = make(packages, tmp_path / "b", "--styles", "flat")
    assert len(single) == 12 and all((image[..., 2] > image[..., 0]).sum() > 1000 for image in single.values())


def test_seed_decides_and_processes_do_not(packages, tmp_path):
    images = make(packages, tmp_path / "a")
    assert all(np.array_equal(images[name], image) for name, image in make(packages, tmp_path / "b").items())
    save = emoji_images.save_emoji
    save(tmp_path / "c", DataSet(packages), [FOX, RACCOON], 6, workers=2)
    for name, image in images.items():
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / "c" / name))), name
    others = make(packages, tmp_path / "d", "--seed", "1")
    assert all(not np.array_equal(images[name], image) for name, image in others.items())


def test_the_size_changes_the_pixels_and_not_the_scene(packages, tmp_path):
    small, large = make(packages, tmp_path / "a", "--size", "48"), make(packages, tmp_path / "b")
    for name, image in large.items():
        mean = image.astype(float).reshape(48, 2, 48, 2, 3).mean((1, 3))
        assert abs(mean - small[name]).mean() < 2, name


def test_a_shift_a_size_and_a_soft_background(packages):
    data = DataSet(packages)
    red = Image.new("RGBA", (ORIGINAL, ORIGINAL), (255, 0, 0, 255))
    edges = []
    for number in range(40):
        image = np.asarray(data.compose(red, str(number), False)).astype(int)
        inside = image[..., 1] < 128
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
        assert abs(len(rows) - len(columns)) <= 1 and 0.8 * 96 < len(rows) < 0.96 * 96
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.median(corners) >= 195
        edges.append((rows[0], columns[0], len(rows)))
    assert len(set(edges)) > 20


def test_half_of_the_images_are_mirrored_unless_that_matters(packages, monkeypatch, tmp_path):
    def on_the_left(images):
        return [(image[:, :40] < 60).sum() > (image[:, -40:] < 60).sum() for image in images.values()]

    mirrored = on_the_left(make(packages, tmp_path / "a", "--count", "20", "--best"))
    assert 10 < sum(mirrored) < 30 and len(mirrored) == 40
    monkeypatch.setattr(emoji_images, "NOT_MIRRORED", {"fox"})
    assert all(on_the_left(make(packages, tmp_path / "b", "--count", "20", "--best")))


def test_packages_that_are_missing_or_not_unpacked(packages, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        make(packages, tmp_path / "a", "--styles", "noto")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "no such package" in message and "npm install --prefix data/npm @iconify-json/noto" in message
    archives = tmp_path / "archives"
    archives.mkdir()
    (archives / "fluent-emoji-3d-1.1.0.tgz").write_bytes(b"")
    with pytest.raises(SystemExit):
        make(archives, tmp_path / "a")
    assert "only archives, such as fluent-emoji-3d-1.1.0.tgz" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_package_without_a_concept(packages, tmp_path, capsys):
    (packages / PACKAGES["flat"] / "assets" / "1f99d.webp").unlink()
    with pytest.raises(SystemExit):
        make(packages, tmp_path / "a")
    assert "has no 1f99d.webp or 1f99d.svg. Install @lobehub/fluent-emoji-flat@1.1.0." in capsys.readouterr().err


def test_svg_needs_a_package_that_renders_it(packages, monkeypatch, tmp_path, capsys):
    asset = packages / PACKAGES["flat"] / "assets" / "1f98a.webp"
    asset.unlink()
    asset.with_suffix(".svg").write_text(SVG)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(SystemExit):
        make(packages, tmp_path / "a")
    assert "python -m pip install resvg-py" in capsys.readouterr().err


def test_svg_of_flat_and_noto(packages, tmp_path):
    pytest.importorskip("resvg_py")
    asset = packages / PACKAGES["flat"] / "assets" / "1f98a.webp"
    asset.unlink()
    asset.with_suffix(".svg").write_text(SVG)
    noto = packages / PACKAGES["noto"]
    noto.mkdir(parents=True)
    (noto / "package.json").write_text("{}")
    (noto / "chars.json").write_text(json.dumps({"1f98a": "fox"}))
    body = SVG[SVG.index("<rect") : -len("</svg>")]
    (noto / "icons.json").write_text(json.dumps({"icons": {"fox": {"body": body}}, "width": 32, "height": 32}))
    for style in ("flat", "noto"):
        image = np.asarray(DataSet(packages).original("1f98a", style))
        assert image.shape == (ORIGINAL, ORIGINAL, 4)
        assert (image[:, :120] == (255, 0, 0, 255)).all() and (image[:, 136:, 3] == 0).all()


def test_names_and_code_points():
    every, best = concepts(), concepts(best=True)
    assert 550 < len(every) < 650 and best.items() <= every.items()
    assert list(every) == sorted(every) and len(set(every.values())) == len(every)
    for name, code in every.items():
        assert name.replace(" ", "").replace("-", "").isalpha() and name.isascii(), name
        assert all(0x2300 <= int(part, 16) <= 0x1FAFF or part in ("fe0f", "200d") for part in code.split("-")), code
    assert every["fox"] == "1f98a" and every["mango"] == "1f96d" and every["coffee cup"] == "2615"
    assert set(every) >= NOT_MIRRORED


def test_the_recipe_has_a_class_for_each_of_the_best():
    config = read_recipe(ROOT / "recipes" / "emoji.yaml")
    assert config.model.params["num_classes"] == len(concepts(best=True))
