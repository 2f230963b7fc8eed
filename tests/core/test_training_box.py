"""The file that ships: small enough, and it says everything a person or a node needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.training.__main__ import BOX, BOX_RECIPE
from pixeldit_core.training.drawings import CLASS_NAMES
from pixeldit_core.training.judge import Judge, confusion, report

FILE = Path(__file__).parents[2] / "models" / "pixeldit-drawings-64.safetensors"


def test_the_file_is_at_most_8_megabytes():
    assert FILE.stat().st_size <= 8_000_000


def test_the_file_tells_its_params_class_names_and_recipe():
    model = pc.load_checkpoint(FILE)
    assert model.family.name == "pixeldit"
    for size in (
        "hidden_size",
        "num_groups",
        "patch_depth",
        "pixel_depth",
        "patch_size",
        "pixel_hidden_size",
        "num_classes",
    ):
        assert getattr(model.params, size) == getattr(BOX, size)
    assert [entry[0] for entry in model.class_names] == list(CLASS_NAMES)
    assert model.recipe == BOX_RECIPE
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_a_sample_is_a_picture_and_repeats():
    model = pc.load_checkpoint(FILE)
    condition = pc.class_condition(model, ["fish", 8])
    first, again = (pc.to_uint8(model, pc.sample(model, condition, seeds=[1, 2])) for _ in range(2))
    assert first.shape == (2, 64, 64, 3) and np.array_equal(first, again)
    assert np.abs(np.diff(np.asarray(first, float), axis=1)).mean() < 20  # flat areas, not noise: noise has about 80
    assert np.asarray(first).std() > 25


def test_report_counts_what_was_right():
    table = np.diag([10] * len(CLASS_NAMES))
    table[0, 0], table[0, 2] = 8, 2
    text = report(table)
    assert "| hot-air balloon | 10 | 80.0% | mountain 2 |" in text
    assert "| all | 120 | 98.3% | |" in text


def test_judge_counts_every_picture_once():
    pictures = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    table = confusion(Judge(), pictures, np.arange(30) % len(CLASS_NAMES))
    assert table.sum() == 30 and table.sum(1).tolist() == [3] * 6 + [2] * 6


@pytest.mark.parametrize("option", ["--out", "--seed", "--steps", "--cache"])
def test_help_explains_the_command(option, capsys):
    from pixeldit_core.training.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and option in capsys.readouterr().out
