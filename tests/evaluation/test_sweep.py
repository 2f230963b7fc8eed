"""Grids of settings: their values, points of the same images, the table, and what is kept."""

import csv
import json
from itertools import product

import pytest
from evaluation.extractors import NAME, draw, write
from evaluation.runs import evaluate
from factories import tiny_model
from PIL import Image

import pixeldit_core as pc
from pixeldit_core.evaluation.sweep import image_key, parse_axes, point_name, points, settings_at

SETTINGS = pc.SamplingSettings(10, 2.0, 1.0, (0.1, 0.9), "ab2", (16, 16))


def test_values_are_lists_or_ranges_with_both_ends():
    axes = parse_axes(["cfg=2.0:4.0:0.25", "interval_end=0.8,0.9,1.0", "ema=0.05,0.1", "steps=10"])
    assert list(axes) == ["ema", "steps", "interval_end", "cfg"]  # the weights change least often
    assert axes["cfg"] == (2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75, 4)
    assert axes["steps"] == (10,) and isinstance(axes["steps"][0], int)
    assert parse_axes(["cfg=0.1:0.3:0.1"])["cfg"] == (0.1, 0.2, 0.3)
    grid = points(axes)
    assert len(grid) == 9 * 3 * 2 and point_name(grid[1]) == "ema=0.05,steps=10,interval_end=0.8,cfg=2.25"


@pytest.mark.parametrize(
    "text, words",
    [
        ("size=1,2", "is no axis of a sweep"), ("cfg", "is no axis"), ("cfg=", "is not readable"), ("cfg=a", "cfg=a"),
        ("cfg=4:2:1", "from 4 to 2 by 1"), ("cfg=1:2", "is not readable"), ("cfg=1:2:0", "by 0"),
        ("steps=1.5", "not a whole number"), ("solver=euler,x", "there are the solvers"), ("cfg=nan", "not a finite"),
        ("cfg=0:1e9:1", "is not readable"), ("cfg=inf:inf:1", "is not readable"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_axes([text])


def test_a_key_twice_or_too_many_points_are_refused():
    with pytest.raises(ValueError, match="cfg is there twice"):
        parse_axes(["cfg=1", "cfg=2"])
    with pytest.raises(ValueError, match=r"1,002,001 points; at most"):
        parse_axes(["cfg=0:10:0.01", "timeshift=1:11:0.01"])


def test_settings_that_make_the_same_images_are_found():
    model = tiny_model()

    def key(**point):
        return image_key(model, settings_at(SETTINGS, point), "standard")

    assert key(cfg=1.0, interval_end=0.9) == key(cfg=1.0, interval_end=0.5)
    assert key(interval_end=0.85) == key(interval_end=0.9) != key(interval_end=0.91)  # grid times 0.8 and 0.9
    assert key(cfg=3.0) != key(cfg=2.0) and key(steps=11) != key() and key(solver="heun") != key()
    assert key(cfg=3.0, interval_start=0.91, interval_end=0.95) == key(cfg=1.0)
    with pytest.raises(ValueError, match="guidance interval"):
        settings_at(SETTINGS, {"interval_start": 0.9, "interval_end": 0.8})


@pytest.fixture
def sweep(tiny_file, tmp_path):
    """A function that sweeps; its words go to the command."""
    reference = write(draw(20, 2, size=16), tmp_path / "reference")

    def run(*words, out="sweep"):
        common = ("--count", 12, "--steps", 4, "--device", "cpu", "--out", tmp_path / out)
        return evaluate(tiny_file, *common, "--reference", reference, "--extractor", NAME, *words)

    return run


def test_a_table_a_plot_and_a_score_for_every_point(sweep, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert sweep("--sweep", "cfg=1:3:1", "interval_end=0.6,0.9") == 0
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [(row["interval_end"], row["cfg"]) for row in rows] == [(e, c) for e in ("0.6", "0.9") for c in
                                                                  ("1.0", "2.0", "3.0")]  # fmt: skip
    assert [row["same_as"] for row in rows] == ["", "", "", "interval_end=0.6,cfg=1", "", ""]
    assert rows[3]["fid"] == rows[0]["fid"] and rows[1]["fid"] != rows[2]["fid"]
    text = capsys.readouterr().out
    assert text.count("\n| 0.") == 6 and text.count("**") == 2
    with Image.open(out / "sweep.png") as image:
        assert image.size == (960, 600)
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert len(folders) == 5 and not list(out.rglob("images"))
    score = json.loads((out / "interval_end=0.6,cfg=2" / "score.json").read_text("utf-8"))
    assert score["fid"] == pytest.approx(float(rows[1]["fid"]), rel=1e-12)
    assert score["run"]["settings"]["cfg"] == 2 and score["run"]["settings"]["cfg_interval"] == [0.1, 0.6]


def test_a_sweep_continues_and_grows(sweep, tmp_path):
    out = tmp_path / "sweep"
    assert sweep("--sweep", "cfg=2,3", "--keep-images") == 0
    first = out / "cfg=2" / "score.json"
    then = first.stat().st_mtime_ns
    assert (out / "cfg=2" / "images").is_dir()
    (out / "cfg=3" / "score.json").unlink()
    assert sweep("--sweep", "cfg=2:4:1") == 0
    assert first.stat().st_mtime_ns == then
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert len({row["fid"] for row in rows}) == 3
    assert sweep("--sweep", "cfg=2:4:1", "--count", 24) == 0  # more images: scored again
    assert json.loads(first.read_text("utf-8"))["count"] == 24


def test_settings_of_every_point_are_checked_before_the_first_image(sweep, tmp_path, capsys):
    assert sweep("--sweep", "interval_end=0.5,0.05") == 2
    assert "guidance interval is 0.1 to 0.05" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
    assert sweep("--sweep", "ema=0.1") == 2
    assert "is no folder; to sweep ema, name the folder of a training run" in capsys.readouterr().err


def test_averages_of_a_training_run_are_an_axis(tmp_path):
    from training_runs import config_of, train, write_images

    images = write_images(tmp_path / "images", 24)
    config = config_of(
        images, average={"decays": [0.9], "power": [0.05, 0.2], "snapshot_every": 4}, engine={"steps": 12}
    )
    run = train(config, tmp_path / "run")
    reference = write(draw(20, 2, size=16), tmp_path / "reference")
    arguments = ("--count", 6, "--steps", 2, "--device", "cpu", "--out", tmp_path / "sweep", "--extractor", NAME)
    assert evaluate(run.path, *arguments, "--reference", reference, "--sweep", "ema=0.05,0.2", "cfg=1,2") == 0
    rows = list(csv.DictReader((tmp_path / "sweep" / "sweep.csv").open()))
    assert [(row["ema"], row["cfg"]) for row in rows] == list(product(("0.05", "0.2"), ("1.0", "2.0")))
    assert rows[0]["fid"] != rows[2]["fid"]
    assert (run.path / "model-ema-0.050.safetensors").exists()
