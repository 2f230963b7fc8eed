"""The folder of a run."""

import os

import pytest

from pixeldit_core.training.run_folder import RunFolder, find_run, step_name


def make_checkpoint(run, step):
    run.part(step).mkdir(parents=True)
    (run.part(step) / "state").write_text(str(step), "utf-8")
    run.complete(step, keep=2)


def test_checkpoints_are_complete_or_not_there_and_the_newest_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    assert run.steps() == []
    for step in (5, 100, 20, 1_000_000):
        make_checkpoint(run, step)
    assert run.steps() == [100, 1_000_000]
    assert (run.checkpoint(100) / "state").read_text("utf-8") == "100"
    make_checkpoint(run, 100)  # again
    run.part(7).mkdir()
    assert run.steps() == [100, 1_000_000]
    run.clear_parts()
    assert not list(run.checkpoints.glob(".*"))
    assert step_name(500) == "step-000500"


def test_a_run_is_found_or_refused_before_anything_happens(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="is a file; to resume, name the folder"):
        find_run(file)
    with pytest.raises(ValueError, match="is not there"):
        find_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no recipe.yaml"):
        find_run(tmp_path)
    run = RunFolder(tmp_path)
    run.recipe.write_text("", "utf-8")
    with pytest.raises(ValueError, match="no complete checkpoint"):
        find_run(tmp_path)
    make_checkpoint(run, 3)
    assert find_run(tmp_path).steps() == [3]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be written to: .* --out"):
        RunFolder(blocked / "run").prepare()
    run = RunFolder(tmp_path / "run")
    run.prepare()
    assert os.listdir(run.path) == ["checkpoints"]
    with pytest.raises(ValueError, match=r"keeps 2 checkpoints of .* Lower engine.keep"):
        run.check_space(10**18, 2)
