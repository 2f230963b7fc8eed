"""What a run puts beside the model that it starts from, and what that does not depend on."""

import dataclasses

import pytest
import torch
from factories import tiny_model
from torch import nn
from training_runs import PARAMS, config_of, same_state, state_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.training import setup
from pixeldit_core.training.setup import set_up

ENGINE = {"steps": 3, "batch_size": 8, "save_every": 1000, "log_every": 1, "seed": 5}


class Encoder(nn.Module):
    width = 6


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """A run from a checkpoint, and its images."""
    folder = tmp_path_factory.mktemp("setup")
    start = pc.save_checkpoint(tiny_model(), folder / "start.safetensors")
    images = write_images(folder / "images", count=24, names=("circle", "square", "tabby"))
    return images, {"model": {"start": str(start), "family": None, "params": {}}, "engine": ENGINE}


def test_a_projector_is_of_the_seed_whatever_was_drawn_before(sections, monkeypatch):
    images, values = sections
    # an encoder may draw numbers when it is loaded
    monkeypatch.setattr(setup, "load_teacher", lambda *_: Encoder().requires_grad_(bool(torch.rand(()) >= 0)))
    found = []
    for before, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(before)
        config = config_of(
            images, **values | {"objective": {"repa": {"encoder": "x", "block": 1}}, "engine": ENGINE | {"seed": seed}}
        )
        found.append(set_up(config).build_loss(torch.device("cpu")).projector[0].weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_lora_with_dropout_is_of_the_seed_whatever_was_drawn_before(sections, tmp_path):
    images, values = sections
    states = []
    for before in (1, 2):
        torch.manual_seed(before)
        config = config_of(images, **values, lora={"rank": 2, "alpha": 2.0, "dropout": 0.3})
        states.append(state_of(train(config, tmp_path / str(before)), 3))
    assert same_state(*states)


def test_checkpoints_are_sampled_at_the_size_of_the_run(sections):
    images, values = sections
    for size, expected in (([16, 16], (16, 16)), ([24, 32], (24, 32))):
        found = set_up(config_of(images, **values | {"data": {"size": size}})).model.spec
        assert found.default_size == expected and found.settings.steps == 4
    new = set_up(config_of(images, model={"params": {**PARAMS}}, engine=ENGINE)).model.spec
    assert new.default_size == (16, 16) and new.settings.cfg == pc.SETTINGS["imagenet256-epoch320"].cfg


def test_what_the_recipe_says_goes_into_the_files_beside_what_the_start_says(sections, tmp_path):
    images, values = sections
    start = pc.load_checkpoint(values["model"]["start"])
    start.spec = dataclasses.replace(start.spec, about=(("author", "A"), ("license", "CC0")))
    path = pc.save_checkpoint(start, tmp_path / "start.safetensors")
    recipe = values | {"model": {**values["model"], "start": str(path)}, "about": {"license": "MIT"}}
    assert set_up(config_of(images, **recipe)).model.spec.about == (("author", "A"), ("license", "MIT"))
