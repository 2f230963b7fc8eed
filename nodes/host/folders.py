"""Where checkpoints and LoRAs are: ComfyUI's model folders, and the pack's with its bundled models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...pixeldit_core.checkpoints.folder import SHARD, TRANSFORMER, WEIGHTS, list_entry, list_names
from ...pixeldit_core.checkpoints.links import is_broken_link
from ...pixeldit_core.checkpoints.locate import PIPELINES, find_source

PACK_FOLDER = "pixeldit"
SHARED = "diffusion_models"
LORAS = "loras"
EXTENSIONS = set(WEIGHTS)
BUNDLED = Path(__file__).parents[2] / "models"


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
    """The full path of a name from the list; of a link whose target is not there, too: reading it says so.

    Raises:
        ValueError: no such file in any of the folders.
    """
    for folder in (PACK_FOLDER, SHARED):
        if path := folder_paths.get_full_path(folder, name) or _find_folder(folder, name):
            return path
    for folder in (PACK_FOLDER, SHARED):
        if path := _find_inside(folder, name, lambda path: is_broken_link(Path(path))):
            return path
    raise ValueError(
        f'checkpoint "{name}" is not in models/{SHARED} nor models/{PACK_FOLDER}. Put it there, press R in the browser '
        "to refresh the list, and choose it again."
    )


def find_lora(name: str) -> str:
    """The full path of a LoRA; of a link whose target is not there, too: reading it says so.

    Raises:
        ValueError: no such file.
    """
    if path := folder_paths.get_full_path(LORAS, name):
        return path
    if path := _find_inside(LORAS, name, lambda path: is_broken_link(Path(path))):
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
    return tuple(map(_stamp, find_source(path).files))


def _stamp(file: Path) -> tuple[int, int]:
    """Time and size of a file; zeros where it cannot be read, which reading it explains."""
    try:
        stat = file.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _entry(folder: str, name: str) -> str:
    """What the list shows for a file: itself, or the folder or index that it belongs to."""
    path = Path(name)
    is_shard = SHARD.fullmatch(path.name) is not None
    if not is_shard and len(path.parts) == 1:
        return name
    full = Path(folder_paths.get_full_path(folder, name) or name)
    root = full.parents[len(path.parts) - 1]
    for parent in path.parents:
        pipeline = root / parent
        if parent.name and any((pipeline / index).is_file() for index in PIPELINES):
            return f"{parent.as_posix()}/" if (pipeline / TRANSFORMER).is_dir() else name
    if not is_shard:
        return name
    return name.removesuffix(path.name) + list_entry(path.name, list_names(full.parent))


def _find_folder(folder: str, name: str) -> str | None:
    return _find_inside(folder, name, os.path.isdir) if name.endswith("/") else None


def _find_inside(folder: str, name: str, is_it: Callable[[str], bool]) -> str | None:
    """The first path of a name in the roots of a folder that is what was asked for, and not outside of its root."""
    for root in map(os.path.abspath, folder_paths.get_folder_paths(folder)):
        path = os.path.abspath(os.path.join(root, name))
        if is_it(path) and os.path.commonpath([root, path]) == root:
            return path
    return None
