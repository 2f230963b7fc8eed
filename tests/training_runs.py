"""Tiny runs for tests: a recipe, its data, and what a run left behind."""

import json

import torch
from PIL import Image
from safetensors.torch import load_file

from pixeldit_core.training.batches import BatchMaker
from pixeldit_core.training.command import _train
from pixeldit_core.training.data.batch import collate
from pixeldit_core.training.engine import Engine
from pixeldit_core.training.recipe import from_values
from pixeldit_core.training.run_folder import RunFolder
from pixeldit_core.training.setup import set_up

NAMES = ("gray", "light", "white")
PARAMS = {
    "hidden_size": 16, "num_groups": 2, "patch_depth": 1, "pixel_depth": 1, "patch_size": 8, "pixel_hidden_size": 4,
    "num_classes": 3,
}  # fmt: skip


def write_images(folder, count=60, size=16, names=NAMES):
    """An image folder: one brightness per class, and a stripe whose place differs."""
    for index in range(count):
        label = index % len(names)
        path = folder / names[label] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (size, size), (60 * label + 60,) * 3)
        image.paste((0, 0, 255), (index % size, 0, index % size + 2, size))
        image.save(path)
    return folder


def values(folder, **sections):
    """A recipe as nested values: 60 steps of 8 images on one thread, no samples; sections update it."""
    recipe = {
        "title": "test",
        "model": {"family": "pixeldit", "params": PARAMS},
        "data": {"path": str(folder), "size": [16, 16], "workers": 0, "flip": True},
        "optim": {"learning_rate": 3e-3},
        "average": {"decays": [0.9]},
        "sample": {"every": 0},
        "engine": {"steps": 60, "batch_size": 8, "save_every": 1000, "log_every": 1, "seed": 5},
    }
    for name, section in sections.items():
        recipe[name] = {**recipe.get(name, {}), **section} if isinstance(section, dict) else section
    return recipe


def config_of(folder, **sections):
    """The same as a config."""
    return from_values(values(folder, **sections), "test")


def train(config, path, resume=False):
    """Train in this process; the run's folder."""
    _train(config, RunFolder(path), resume=resume)
    return RunFolder(path)


def state_of(run, step):
    """Every tensor of a training state."""
    folder = run.checkpoint(step)
    tensors = {**load_file(folder / "model.safetensors"), **load_file(folder / "averages.safetensors")}
    optimizer = torch.load(folder / "optimizer.bin", weights_only=True)
    for number, entry in optimizer["state"].items():
        tensors |= {f"{number}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    return tensors


def same_state(first, second):
    """Whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def notes_of(run, step):
    """The notes of a training state."""
    return json.loads((run.checkpoint(step) / "state.json").read_text("utf-8"))


def gradients_of(config, step):
    """Gradients of a run's step before it is taken, and the rank of this process."""
    setup = set_up(config)
    engine = Engine(setup.config)
    engine.prepare(setup.build_loss(engine.device), BatchMaker(setup.model, setup.texts))
    order = setup.order(engine.rank, engine.world_size)
    engine._gradients(collate([setup.data[draw] for draw in order.batch(step)]), step)
    return {name: p.grad.clone() for name, p in engine.module.named_parameters() if p.grad is not None}, engine.rank
