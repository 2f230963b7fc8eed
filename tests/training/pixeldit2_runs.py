"""Tiny runs of PixelDiT2: recipes, and the file of a random encoder."""

from checkpoints.encoder_files import saved, timm
from pixeldit2_cases import tiny
from training_runs import config_of

PARAMS = {
    "hidden_size": 16, "num_heads": 2, "depth": 4, "patch_size": 8, "num_classes": 3, "in_context_len": 2,
    "in_context_start": 1, "encoder_dim": 16, "encoder_depth": 2, "encoder_num_heads": 2,
}  # fmt: skip
ENGINE = {"steps": 60, "batch_size": 8, "save_every": 1000, "log_every": 1, "seed": 5}


def write_encoder(folder):
    """An encoder of width 16 with random weights."""
    return saved(folder / "encoder" / "model.safetensors", timm(tiny()))


def run_config(images, encoder, **sections):
    """A run of 60 steps from initial weights; sections update it."""
    recipe = {
        "model": {"family": "pixeldit2", "params": PARAMS, "encoder": str(encoder)},
        "objective": {"time_mean": -0.8, "time_std": 0.8},
        "engine": ENGINE,
    }
    return config_of(
        images, **{name: {**recipe.get(name, {}), **section} for name, section in (recipe | sections).items()}
    )
