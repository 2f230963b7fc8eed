"""The bundled files: small, complete, and trained by recipes."""

import numpy as np
import pytest
import torch
from helpers import MODELS, ROOT

import pixeldit_core as pc
from pixeldit_core.training.recipe import read_recipe

FILES = {"drawings": MODELS / "pixeldit-drawings-64.safetensors", "digits": MODELS / "xpred-digits-28.safetensors"}
LARGEST = {"drawings": 8_000_000, "digits": 3_000_000}
RECIPES = {"drawings": "toy-drawings", "digits": "bundled-digits"}
each_model = pytest.mark.parametrize("name", FILES)


@each_model
def test_the_file_is_small(name):
    assert FILES[name].stat().st_size <= LARGEST[name]


@each_model
def test_the_file_has_what_its_recipe_says(name):
    model, config = pc.load_checkpoint(FILES[name]), read_recipe(ROOT / "recipes" / f"{RECIPES[name]}.yaml")
    assert model.family.name == config.model.family
    built = pc.build_model(model.family, model.family.params(**config.model.params))
    assert {key: value.shape for key, value in model.network.state_dict().items()} == {
        key: value.shape for key, value in built.network.state_dict().items()
    }
    assert [entry[0] for entry in model.class_names] == list(config.model.class_names or "0123456789")
    assert model.settings == pc.SamplingSettings.from_dict(config.settings)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_a_sample_is_an_image_and_repeats():
    model = pc.load_checkpoint(FILES["drawings"])
    condition = pc.class_condition(model, ["fish", 8])
    first, again = (pc.to_uint8(model, pc.sample(model, condition, seeds=[1, 2])) for _ in range(2))
    assert first.shape == (2, 64, 64, 3) and np.array_equal(first, again)
    assert np.abs(np.diff(np.asarray(first, float), axis=1)).mean() < 20  # flat areas, not noise: noise has some 80
    assert np.asarray(first).std() > 25
