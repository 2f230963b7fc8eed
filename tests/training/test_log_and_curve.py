"""The log of a run, and the loss curve."""

import math

import numpy as np
import pytest
from PIL import Image

from pixeldit_core.training.curve import _running_mean, draw_loss_curve
from pixeldit_core.training.run_log import RunLog, read_rows


def rows(losses):
    return [{"step": str(10 * index), "loss": str(loss)} for index, loss in enumerate(losses)]


def test_a_log_goes_on_after_the_step_that_was_saved(tmp_path):
    path = tmp_path / "log.csv"
    log = RunLog(path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 2})
    log.close()
    log = RunLog(path, 2)
    log.write({"step": 3, "loss": 9.0})
    assert [row["loss"] for row in log.read()] == ["0.5", "1.0", "9.0"]
    log.close()
    RunLog(path, 0).close()
    assert read_rows(path) == []


def test_columns_may_come_later_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "log.csv"
    log = RunLog(path, 0)
    log.write({"step": 1, "loss": 2.0})
    log.write({"step": 2, "loss": 1.0, "repa": 0.5})
    log.write({"step": 3, "loss": float("nan")})
    log.close()
    assert path.read_text("utf-8").splitlines() == ["step,loss,repa", "1,2.0,", "2,1.0,0.5", "3,nan,"]
    with path.open("a", encoding="utf-8") as file:
        file.write("4,0.")
    assert [row["step"] for row in read_rows(path)] == ["1", "2", "3"]
    log = RunLog(path, 3)
    log.write({"step": 4, "loss": 0.25})
    log.close()
    assert path.read_text("utf-8").splitlines()[-1] == "4,0.25,"


@pytest.mark.parametrize("end", ["3,0.12", "3,0.12,0.", "3", "\0\0\0", '3,"0'])
def test_whatever_a_killed_run_leaves_of_a_line(end, tmp_path):
    """A value that is cut off looks like another one: only lines that have ended count."""
    path = tmp_path / "log.csv"
    path.write_text(f"step,loss,repa\n1,2.0,0.5\n2,1.0,0.25\n{end}", encoding="utf-8")
    assert [row["step"] for row in read_rows(path)] == ["1", "2"]
    log = RunLog(path, 2)
    log.write({"step": 3, "loss": 0.125, "repa": 0.0})
    log.close()
    assert path.read_text("utf-8") == "step,loss,repa\n1,2.0,0.5\n2,1.0,0.25\n3,0.125,0.0\n"


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path / "log.csv", 0, tmp_path / "board")
    log.write({"step": 1, "loss": 0.5})
    log.close()
    assert any(path.stat().st_size > 0 for path in (tmp_path / "board").iterdir())


def dark(path):
    return (np.asarray(Image.open(path).convert("L")) < 128).sum()


@pytest.mark.parametrize(
    "losses",
    [
        [1.5 * math.exp(-step / 30) + 0.1 for step in range(200)],
        [0.5],
        [-1.0] * 5,
        [3.0, math.nan, math.inf, 2.0],
        list(np.linspace(2, 1, 100_000)),
        [1e-12, 1e12],
        [1.0, 1.0001, 1.0],
    ],
    ids=["falling", "one", "equal", "not finite", "many", "wide", "narrow"],
)
def test_any_losses_make_a_curve(losses, tmp_path):
    draw_loss_curve(rows(losses), tmp_path / "loss.png", "a run")
    draw_loss_curve([], tmp_path / "empty.png", "a run")
    assert Image.open(tmp_path / "loss.png").size == (900, 500)
    assert dark(tmp_path / "loss.png") > dark(tmp_path / "empty.png")


def test_no_spike_is_lost_in_a_long_curve(tmp_path):
    losses = np.ones(50_000)
    losses[12_345] = 3.0
    draw_loss_curve(rows(losses), tmp_path / "loss.png")
    pixels = np.asarray(Image.open(tmp_path / "loss.png").convert("RGB"), int)
    column = pixels[60:440, 80 + round(780 * 12_345 / 49_999) - 2 :][:, :5]
    assert (column[..., 2] - column[..., 0] > 20).any(1).sum() > 300  # blue from bottom to top


def test_the_mean_does_not_lag():
    losses = np.linspace(2, 1, 301)
    assert _running_mean(losses)[5:-5] == pytest.approx(losses[5:-5])
