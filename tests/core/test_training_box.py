"""The file that ships: small enough, and it says everything a person or a node needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.families.xpred.params import XPredParams
from pixeldit_core.training.__main__ import BOX, BUNDLED_SETTINGS
from pixeldit_core.training.classifier import Judge, confusion, report
from pixeldit_core.training.digits import draw_digits
from pixeldit_core.training.digits_model import SETTINGS as DIGITS_SETTINGS
from pixeldit_core.training.digits_model import velocity
from pixeldit_core.training.drawings import CLASS_NAMES
from pixeldit_core.training.initialize import initialize_xpred
from pixeldit_core.training.trainer import TrainingSettings, train

DIGITS = Path(__file__).parents[2] / "models" / "xpred-digits-28.safetensors"
FILE = Path(__file__).parents[2] / "models" / "pixeldit-drawings-64.safetensors"


def test_the_file_is_at_most_8_megabytes():
    assert FILE.stat().st_size <= 8_000_000


def test_the_file_tells_its_params_class_names_and_settings():
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
    assert model.settings == BUNDLED_SETTINGS
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


def test_the_digits_in_the_box_are_what_they_shall_be():
    """Nine of ten samples have, among a thousand drawn digits, a nearest one of their class."""
    model = pc.load_checkpoint(DIGITS)
    assert DIGITS.stat().st_size <= 3_000_000
    assert model.family.name == "xpred_pixeldit" and model.settings == DIGITS_SETTINGS
    assert [entry[0] for entry in model.class_names] == list("0123456789")
    labels = torch.arange(10).repeat_interleave(6)
    made = pc.to_uint8(model, pc.sample(model, pc.class_condition(model, labels.tolist()), seeds=range(60), steps=10))
    assert made.shape == (60, 28, 28, 1)
    drawn, classes = draw_digits(5, 1000)
    distances = torch.cdist(made.flatten(1).float(), drawn.flatten(1).float())
    assert (classes[distances.argmin(dim=1)] == labels).float().mean() >= 0.9


def test_a_few_steps_of_training_teach_an_x_prediction_network():
    params = XPredParams(dim=16, depth=1, in_channels=1, heads=2, dim_head=8, image_size=28, pixel_dim=4,
                         pixel_depth=1, compress_ratio=4)  # fmt: skip
    model = pc.build_model("xpred_pixeldit", params, device="cpu")
    torch.manual_seed(0)
    initialize_xpred(model.network)
    assert model.network(torch.randn(1, 1, 28, 28), torch.zeros(1)).abs().max() == 0  # as the authors start
    pictures, labels = draw_digits(0, 64)
    losses = []
    settings = TrainingSettings(steps=60, batch=16, warmup=2, flip=False, compile=False, bfloat16=False)
    arguments = (model.network, pictures.movedim(1, -1).numpy(), labels.numpy(), settings)
    train(*arguments, lambda step, loss, ema: losses.append(loss), velocity)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
