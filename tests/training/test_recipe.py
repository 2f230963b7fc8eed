"""Recipes: reading, overrides, errors, and the ones that come along."""

import dataclasses

import pytest
from helpers import ROOT

from pixeldit_core.training.config import TrainConfig
from pixeldit_core.training.recipe import from_values, read_recipe, to_values, write_recipe

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {family: pixeldit}\noptim: {learning_rate: 1e-3, betas: [0.9, 0.99]}\n", "utf-8")
    return path


def test_a_recipe_is_defaults_and_what_it_says(recipe):
    config = read_recipe(recipe)
    assert config.optim.learning_rate == 1e-3  # YAML itself reads 1e-3 as a string
    assert config.optim.betas == (0.9, 0.99)
    assert config == dataclasses.replace(TrainConfig(), model=config.model, optim=config.optim)


def test_overrides_reach_every_section(recipe):
    config = read_recipe(
        recipe,
        ["engine.steps=5", "data.size=[64, 32]", "model.class_names=[a, b]", "objective.repa.block=2", "lora={}"],
    )
    assert config.engine.steps == 5 and config.data.size == (64, 32) and config.model.class_names == ("a", "b")
    assert config.objective.repa.block == 2 and config.lora.rank == 16
    assert read_recipe(recipe, ["optim.max_grad_norm=null"]).optim.max_grad_norm is None


def test_writing_and_reading_is_the_identity(recipe, tmp_path):
    config = read_recipe(recipe, ["objective.repa.encoder=x", "lora.rank=4", "settings={steps: 3, cfg: 2}"])
    write_recipe(config, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == config == from_values(to_values(config), "values")


@pytest.mark.parametrize(
    "override, message",
    [
        ("engine.stepz=3", '"engine.stepz" is not a setting; the nearest is "engine.steps"'),
        ("learning_rate=3", 'the nearest is "optim.learning_rate"'),
        ("optim.lr=1", "there are optim.optimizer, optim.learning_rate"),
        ("objective.repa.blok=2", 'the nearest is "objective.repa.block"'),
        ("engine.steps=many", "engine.steps is 'many': input should be a valid integer"),
        ("data.kind=folders", "data.kind is 'folders': input should be 'folder', 'captions'"),
        ("engine=3", "engine is 3"),
        ("engine.steps.more=3", "engine.steps is not a section|steps is a value, not a section"),
        ("engine.steps", "is not an override; write key=value"),
    ],
)
def test_errors_name_the_key_and_the_way_out(recipe, override, message):
    overrides = ["engine.steps=1", override] if "more" in override else [override]
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe, overrides)


@pytest.mark.parametrize("content", [b"- 1\n- 2\n", b"", b"a: [", b"\xff\xfe\x00", b"model: 7"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.yaml"):
        read_recipe(path)
    with pytest.raises(ValueError, match="is not there. The recipes that come along are in recipes/"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_readable(path):
    config = read_recipe(path)
    assert config.title and config.engine.steps > 0


def test_every_published_system_has_a_recipe():
    names = {path.stem for path in RECIPES}
    assert {f"imagenet256-{size}" for size in ("b", "l", "xl")} | {"imagenet512-xl", "pixelhdm"} <= names
    assert {f"t2i-stage{stage}" for stage in (1, 2, 3)} | {"toy-digits", "emoji", "bundled-digits"} <= names
    kinds = ("dit", "mmdit", "pixeldit", "mmpixeldit")
    assert {f"{data}-{kind}" for data in ("mnist", "cifar10") for kind in kinds} <= names
