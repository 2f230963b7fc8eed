"""Where checkpoints and LoRAs are: ComfyUI's model folders, and the pack's with its bundled models."""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths

from ...pixeldit_core.checkpoints.locate import INDEX, PIPELINES, TRANSFORMER, find_source

PACK_FOLDER = "pixeldit"
SHARED = "diffusion_models"
LORAS = "loras"
EXTENSIONS = {".safetensors", ".sft", ".ckpt", ".pth", ".pt", ".bin"}
BUNDLED = Path(__file__).parents[2] / "models"

_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-\d+\.safetensors")


def register() -> None:
    """Add the folders to ComfyUI's, and keep entries of the user's extra_model_paths.yaml."""
    paths, extensions = folder_paths.folder_names_and_paths.get(PACK_FOLDER, ([], set()))
    for path in (os.path.join(folder_paths.models_dir, PACK_FOLDER), str(BUNDLED)):
        if path not in paths:
            paths.append(path)
    folder_paths.folder_names_and_paths[PACK_FOLDER] = (paths, set(extensions) | EXTENSIONS)


def list_checkpoints() -> list[str]:
    """Names for the loader's list, each once: files, diffusers folders ("name/"), and indices in place of shards."""
    names = [
        _entry(folder, name) for folder in (PACK_FOLDER, SHARED) for name in folder_paths.get_filename_list(folder)
    ]
    return list(dict.fromkeys(names))


def list_loras() -> list[str]:
    """Names for the list of LoRAs."""
    return list(folder_paths.get_filename_list(LORAS))


def find_checkpoint(name: str) -> str:
    """The full path of a name from the list.

    Raises:
        ValueError: no such file in any of the folders.
    """
    for folder in (PACK_FOLDER, SHARED):
        if path := folder_paths.get_full_path(folder, name) or _find_folder(folder, name):
            return path
    raise ValueError(
        f'checkpoint "{name}" is not in models/{SHARED} nor models/{PACK_FOLDER}. Put it there, press R in the browser '
        "to refresh the list, and choose it again."
    )


def find_lora(name: str) -> str:
    """The full path of a LoRA.

    Raises:
        ValueError: no such file.
    """
    if path := folder_paths.get_full_path(LORAS, name):
        return path
    raise ValueError(
        f'LoRA "{name}" is not in models/{LORAS}. Put it there, press R in the browser to refresh the list, and choose '
        "it again."
    )


def fingerprint(path: str) -> tuple:
    """Changes when one of the files of a checkpoint does.

    Raises:
        ValueError: what `find_source` raises.
    """
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in map(os.stat, find_source(path).files))


def _entry(folder: str, name: str) -> str:
    """What the list shows for a file: itself, or the folder or index that it belongs to."""
    path = Path(name)
    shard = _SHARD.fullmatch(name)
    if shard is None and len(path.parts) == 1:
        return name
    root = Path(folder_paths.get_full_path(folder, name) or name)
    for _ in path.parts:
        root = root.parent
    for parent in path.parents:
        pipeline = root / parent
        if parent.name and any((pipeline / index).is_file() for index in PIPELINES):
            return f"{parent.as_posix()}/" if (pipeline / TRANSFORMER).is_dir() else name
    index = shard and shard["stem"] + INDEX
    return index if index and (root / index).is_file() else name


def _find_folder(folder: str, name: str) -> str | None:
    if not name.endswith("/"):
        return None
    for root in map(os.path.abspath, folder_paths.get_folder_paths(folder)):
        path = os.path.abspath(os.path.join(root, name))
        if os.path.isdir(path) and os.path.commonpath([root, path]) == root:
            return path
    return None
