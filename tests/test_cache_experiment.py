"""benchmarks/cache.py: what its caches leave out, and that it runs."""

import importlib
import sys

import pytest
import torch
from factories import tiny_model
from helpers import ROOT, close

import pixeldit_core as pc


@pytest.fixture
def cache(monkeypatch):
    """The module; what it imports lies beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("cache")
    for name in ("cache", "caches"):
        sys.modules.pop(name, None)


@pytest.fixture
def task(cache):
    model = tiny_model()
    return cache.Task(model, pc.unit_noise(model, [0, 1], 16, 16), torch.tensor([3, 7]), 2.0, (0.1, 0.9))


def plain(cache, task, solver="ab2", steps=8):
    return cache.sample(task, cache.Method("plain", solver, steps))


def test_plain_is_the_sampling_of_the_package(cache, task):
    x, counts = plain(cache, task)
    expected = pc.sample(task.model, task.classes, noise=task.noise, steps=8, solver="ab2")
    close(x, expected)
    assert counts.patch_rows == counts.pixel_rows == 2 * (8 + 7), "guided but at t = 0"


@pytest.mark.parametrize("kind", ["patches", "easy", "lazy"])
def test_a_threshold_that_nothing_stays_below_changes_nothing(cache, task, kind):
    x, counts = cache.sample(task, cache.Method(kind, "ab2", 8, 1e-9))
    expected, full = plain(cache, task)
    assert torch.equal(x, expected)
    assert (counts.patch_rows, counts.pixel_rows) == (full.patch_rows, full.pixel_rows)


@pytest.mark.parametrize("reuse", ["output", "residual", "linear"])
def test_every_other_call_reuses_patch_tokens(cache, task, reuse):
    x, counts = cache.sample(task, cache.Method("patches", "euler", 8, 2.0, "count", reuse))
    # calls 0 to 7: the second has null rows that nothing was kept for; reused are 2, 4 and 6, the last computes
    assert counts.pixel_rows == 2 * (8 + 7)
    assert counts.patch_rows == counts.pixel_rows - 2 * 2 * 3
    expected, _ = plain(cache, task, "euler")
    assert not torch.equal(x, expected)
    close(x, expected, 0.3)


@pytest.mark.parametrize("kind", ["easy", "lazy"])
def test_a_high_threshold_leaves_out_whole_calls(cache, task, kind):
    _, counts = cache.sample(task, cache.Method(kind, "euler", 20, 9.0))
    assert counts.patch_rows == counts.pixel_rows < 2 * 20


def test_it_runs(cache, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny.safetensors"
    pc.save_checkpoint(tiny_model(), file)
    small = "--images 2 --steps 4 --thresholds 0.3 --budgets 3 4 --timeshifts 2 --reference 5 --shares 0.2".split()
    monkeypatch.setattr(sys, "argv", ["cache.py", str(file), *small, "--out", str(tmp_path / "all.jsonl")])
    cache.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| 4 |") for line in lines) == 2, "a table for each share"
    assert all("ab2" in line or "euler" in line for line in lines if line.startswith("| 4 |"))
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) > 20
