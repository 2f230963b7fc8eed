"""The bundled files: small, complete, and trained by recipes."""

import json

import numpy as np
import pytest
import torch
from emoji_names import concepts
from helpers import MODELS, ROOT

import pixeldit_core as pc
from pixeldit_core.cli.sample import SHOWCASE
from pixeldit_core.training.recipe import read_recipe

FILES = {"emoji": MODELS / "pixeldit-emoji-96.safetensors", "digits": MODELS / "xpred-digits-28.safetensors"}
LARGEST = {"emoji": 16_000_000, "digits": 3_000_000}
RECIPES = {"emoji": "emoji", "digits": "bundled-digits"}
NAMES = {"emoji": sorted(concepts(best=True)), "digits": list("0123456789")}
each_model = pytest.mark.parametrize("name", FILES)


@each_model
def test_the_file_is_small(name):
    assert FILES[name].stat().st_size <= LARGEST[name]


def test_all_files_together_are_small():
    files = list(MODELS.glob("*.safetensors"))
    assert set(files) == set(FILES.values())
    assert sum(path.stat().st_size for path in files) <= 20_000_000


@each_model
def test_the_file_has_what_its_recipe_says(name):
    model, config = pc.load_checkpoint(FILES[name]), read_recipe(ROOT / "recipes" / f"{RECIPES[name]}.yaml")
    assert model.family.name == config.model.family
    built = pc.build_model(model.family, model.family.params(**config.model.params))
    assert {key: value.shape for key, value in model.network.state_dict().items()} == {
        key: value.shape for key, value in built.network.state_dict().items()
    }
    assert [entry[0] for entry in model.class_names] == NAMES[name]
    assert model.settings == pc.SamplingSettings.from_dict(config.settings)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_a_sample_is_an_image_and_repeats():
    model = pc.load_checkpoint(FILES["emoji"])
    condition = pc.class_condition(model, ["fox", 250])
    first, again = (pc.to_uint8(model, pc.sample(model, condition, seeds=[1, 2])) for _ in range(2))
    assert first.shape == (2, 96, 96, 3) and np.array_equal(first, again)
    assert np.abs(np.diff(np.asarray(first, float), axis=1)).mean() < 20  # flat areas, not noise: noise has some 80
    assert np.asarray(first).std() > 25


def test_the_command_and_the_quickstart_show_the_same_classes():
    model = pc.load_checkpoint(FILES["emoji"])
    assert len(set(pc.class_condition(model, SHOWCASE).tolist())) == 12
    graph = json.loads((ROOT / "workflows" / "PixelDiT Quickstart.json").read_text(encoding="utf-8"))
    (label,) = (node for node in graph["nodes"] if node["type"] == "PixelDiTClassLabel")
    assert label["widgets_values"][1] == ", ".join(SHOWCASE)


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_templates_name_classes_that_the_model_has(path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    nodes = [node for node in graph["nodes"] if node["type"] in ("PixelDiTLoader", "PixelDiTClassLabel")]
    file = next((MODELS / node["widgets_values"][0] for node in nodes if node["type"] == "PixelDiTLoader"), None)
    if file not in FILES.values():
        return
    model = pc.load_checkpoint(file)
    for node in nodes:
        if node["type"] == "PixelDiTClassLabel":
            pc.class_condition(model, node["widgets_values"][0])


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_samplers_of_templates_show_the_settings_in_the_file(path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    loaders = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "PixelDiTLoader"]
    if not loaders or MODELS / loaders[0] not in FILES.values():
        return
    settings = pc.load_checkpoint(MODELS / loaders[0]).settings
    for node in graph["nodes"]:
        if node["type"] == "PixelDiTSampler":
            name, steps, solver, cfg, timeshift, start, end = node["widgets_values"][2:9]
            assert (name, timeshift) == ("checkpoint default", 0)  # 0: that of the settings
            assert (steps, solver, cfg, (start, end)) == (
                settings.steps,
                settings.solver,
                settings.cfg,
                settings.cfg_interval,
            )
