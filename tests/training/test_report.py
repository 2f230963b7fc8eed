"""`train RECIPE --dry-run`: what a run would be, from its recipe alone."""

import importlib.util

import pytest
import torch
from helpers import ROOT
from training_runs import PARAMS, config_of, write_images

from pixeldit_core.training.command import describe
from pixeldit_core.training.recipe import read_recipe
from pixeldit_core.training.report import byte_text, describe_run, flop_text, memory_table
from pixeldit_core.training.start import planned_spec

RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.yaml"))
LINES = (
    "network", "start", "images", "parameters", "memory", "micro-batch", "batch", "steps", "epochs", "work",
    "at 400 TFLOP/s",
)  # fmt: skip


def rows_of(text):
    """Value by name."""
    pairs = (line.strip().split("  ", 1) for line in text.splitlines()[1:])
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


@pytest.mark.parametrize("name", ["mnist-mmpixeldit.yaml", "pixelhdm.yaml"])
def test_needs_neither_data_nor_encoder(name, monkeypatch):
    monkeypatch.chdir(ROOT / "tests")  # where no data is
    rows = rows_of(describe(ROOT / "recipes" / name, []))
    assert set(LINES) <= rows.keys()
    assert "is not there" in rows["epochs"]
    assert ("not counted" in rows) == (name == "pixelhdm.yaml")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_network_that_can_be_built(name):
    config = read_recipe(ROOT / "recipes" / name).model
    assert config.family in (None, planned_spec(config).family.name)


def test_a_start_that_is_not_there_yet_is_a_note():
    rows = rows_of(describe_run(config_of("", model={"start": "runs/other/model.safetensors"})))
    assert rows["start"] == "runs/other/model.safetensors, which is not there yet"
    with pytest.raises(ValueError, match="no such file"):
        describe_run(config_of("", model={"start": "runs/other/model.safetensors", "family": None, "params": {}}))


def test_overrides_count():
    recipe = ROOT / "recipes" / "imagenet256-b.yaml"
    rows = rows_of(describe(recipe, ["engine.batch_size=512", "engine.steps=1000", "data.path=elsewhere"]))
    assert rows["batch"] == "512 images for each step" and rows["steps"] == "1,000, 512,000 images"
    assert rows["work"] == "226 GFLOP for each image, 116 TFLOP for each step"
    assert "elsewhere is not there" in rows["epochs"]


def test_epochs_of_data_that_is_there(tmp_path):
    folder = write_images(tmp_path / "images", count=40)
    rows = rows_of(describe_run(config_of(folder)))
    assert rows["epochs"] == "12 of 40 images, 5 steps each"


def test_too_few_images_are_a_note(tmp_path):
    folder = write_images(tmp_path / "images", count=4)
    assert "not known" in rows_of(describe_run(config_of(folder)))["epochs"]


def test_a_lora_of_a_checkpoint(tmp_path):
    model = ROOT / "models" / "pixeldit-emoji-96.safetensors"
    config = config_of("", model={"family": None, "params": {}, "start": str(model)}, lora={"rank": 4},
                       data={"size": None})  # fmt: skip
    rows = rows_of(describe_run(config))
    assert rows["start"] == str(model) and "of the LoRA" in rows["parameters"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"family": None}, "set model.family"),
        ({"family": "pixeldit", "params": {"hidden": 4}}, "hidden"),
        ({"family": "unet"}, "unet"),
        ({"family": "pixeldit", "variant": "PixelDiT-S", "params": {}}, "PixelDiT-S"),
    ],
)
def test_a_network_that_cannot_be_built_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        describe_run(config_of("", model=model))


def test_a_size_that_is_not_for_the_network_is_an_error():
    assert PARAMS["patch_size"] == 8
    with pytest.raises(ValueError, match="does not divide"):
        describe_run(config_of("", data={"size": [20, 20]}))


def test_it_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    describe_run(config_of(""))
    assert torch.equal(before, torch.get_rng_state())


def test_numbers_have_three_digits_and_a_unit():
    assert [byte_text(n) for n in (23.94e9, 980e6, 12.5e3, 1.2e12)] == ["23.9 GB", "980 MB", "12.5 kB", "1.2 TB"]
    assert [flop_text(n) for n in (0.934e12, 5810e12)] == ["934 GFLOP", "5,810 TFLOP"]


def test_the_table_of_the_docs_is_the_computed_one():
    location = ROOT / "tools" / "memory_table.py"
    module_spec = importlib.util.spec_from_file_location("memory_table", location)
    tool = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(tool)
    assert memory_table(tool.ROWS) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
