"""The command `train`: its options, and errors before any work."""

import subprocess
import sys

import pytest
from helpers import ROOT
from training_runs import train, values, write_images

from pixeldit_core.cli import main
from pixeldit_core.training.recipe import from_values, write_recipe

EXTRAS = ("accelerate", "peft", "webdataset", "transformers", "pydantic", "yaml", "tensorboard", "timm")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images", 24)


@pytest.fixture
def recipe(images, tmp_path):
    path = tmp_path / "mine.yaml"
    write_recipe(from_values(values(images, engine={"steps": 3, "batch_size": 8}), "test"), path)
    return path


def fails(capsys, *arguments):
    """The message of a command that fails as a user can mend."""
    assert main(["train", *map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command, words", [("train", ("--resume", "--dry-run", "KEY=VALUE")), ("ema", ("--length",))])
def test_help_explains_the_command(command, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and all(word in out for word in words)


def test_a_recipe_or_a_run_is_needed_and_options_may_stand_anywhere(recipe, tmp_path, capsys):
    assert "name either a recipe to start, or a run" in fails(capsys)
    assert "name either a recipe to start, or a run" in fails(capsys, recipe, "--resume", tmp_path)
    arguments = [str(recipe), "engine.steps=2", "--out", str(tmp_path / "run"), "engine.log_every=1"]
    assert main(["train", *arguments]) == 0
    assert (tmp_path / "run" / "log.csv").read_text("utf-8").count("\n") == 3
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--ouy", "x"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_what_cannot_be_resumed_is_named_before_the_first_step(recipe, images, tmp_path, capsys):
    assert "is a file; to resume, name the folder of the run" in fails(capsys, "--resume", recipe)
    assert "is not there" in fails(capsys, "--resume", tmp_path / "nowhere")
    run = train(from_values(values(images, engine={"steps": 2, "batch_size": 8}), "test"), tmp_path / "run")
    for override in (
        "model.params.hidden_size=32",
        "model.family=xpred_dit",
        "objective.dropout=0.2",
        "data.flip=false",
    ):
        assert f"{override.partition('=')[0]} cannot change when" in fails(capsys, "--resume", run.path, override)
    assert main(["train", "--resume", str(run.path)]) == 0
    assert "has made its 2 steps. Raise engine.steps" in capsys.readouterr().out
    assert main(["train", "--resume", str(run.path), "engine.steps=4"]) == 0
    assert run.steps()[-1] == 4


def test_a_class_folder_or_an_image_that_is_gone_at_resume_is_refused(recipe, tmp_path, capsys):
    images = write_images(tmp_path / "images", 24)
    run = train(from_values(values(images, engine={"steps": 2, "batch_size": 8}), "test"), tmp_path / "run")
    moved = next((images / "gray").iterdir())
    moved.rename(tmp_path / "moved.png")
    assert "was trained on 24 images, and there are 23" in fails(capsys, "--resume", run.path, "engine.steps=4")
    (images / "gray").rename(tmp_path / "gray")
    assert "gray" in fails(capsys, "--resume", run.path, "engine.steps=4")


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no write permission to take away")
def test_a_folder_that_cannot_be_written_to_is_named(recipe, tmp_path, capsys):
    (tmp_path / "file").write_text("", "utf-8")
    assert "cannot be written to" in fails(capsys, recipe, "--out", tmp_path / "file" / "run")


def test_data_that_is_missing_is_named(recipe, tmp_path, capsys):
    assert "nowhere" in fails(capsys, recipe, "--out", tmp_path / "run", f"data.path={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, recipe, "--out", tmp_path / "run", f"data.path={tmp_path / 'empty'}")
    assert not (tmp_path / "run").exists()


def test_without_the_extra_everything_else_works_and_train_says_what_to_install(tmp_path):
    block = f"import sys\nfor name in {EXTRAS}: sys.modules[name] = None\n"
    code = block + "from pixeldit_core.cli import main\nsys.exit(main(['train', 'recipes/toy-digits.yaml']))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and 'pip install -e ".[train]"' in run.stderr
    sample = ["sample", "--steps", "1", "--classes", "3", "--out", str(tmp_path)]
    code = block + f"from pixeldit_core.cli import main\nsys.exit(main({sample}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
