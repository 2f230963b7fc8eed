"""Where checkpoints lie: models/diffusion_models, models/pixeldit, and the model that comes with the pack."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

OWN = "pixeldit"
SHARED = "diffusion_models"
EXTENSIONS = {".safetensors", ".sft", ".ckpt", ".pth", ".pt", ".bin"}
BUNDLED = Path(__file__).parents[2] / "models"


def register() -> None:
    """Make the folders known; an entry that the user's extra_model_paths.yaml made stays."""
    paths, extensions = folder_paths.folder_names_and_paths.get(OWN, ([], set()))
    for path in (os.path.join(folder_paths.models_dir, OWN), str(BUNDLED)):
        if path not in paths:
            paths.append(path)
    folder_paths.folder_names_and_paths[OWN] = (paths, set(extensions) | EXTENSIONS)


def list_checkpoints() -> list[str]:
    """Names for the loader's list, each once."""
    return list(dict.fromkeys([*folder_paths.get_filename_list(OWN), *folder_paths.get_filename_list(SHARED)]))


def find_checkpoint(name: str) -> str:
    """The full path of a name from the list.

    Raises:
        ValueError: no such file in any of the folders.
    """
    for folder in (OWN, SHARED):
        if path := folder_paths.get_full_path(folder, name):
            return path
    raise ValueError(
        f'checkpoint "{name}" is not in models/{SHARED} nor models/{OWN}. Put it there, press R in the browser to '
        "refresh the list, and choose it again."
    )
