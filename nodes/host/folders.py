"""Where checkpoints and LoRAs are: ComfyUI's model folders, and the pack's with its bundled models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import folder_paths

from ...pixeldit_core.checkpoints.folder import WEIGHTS
from ...pixeldit_core.checkpoints.links import is_broken_link
from ...pixeldit_core.checkpoints.locate import find_source
from .listing import list_entries

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
    return list(dict.fromkeys(entry for folder in (PACK_FOLDER, SHARED) for entry in list_entries(folder)))


def list_loras() -> list[str]:
    """Names for the list of LoRAs."""
    return list(folder_paths.get_filename_list(LORAS))


def find_checkpoint(name: str) -> str:
    """The full path of a name from the list; of a link whose target is not there, too: reading it says so.

    Args:
        name: with slashes, or with backslashes as Windows writes it.

    Raises:
        ValueError: no such file in any of the folders.
    """
    if path := find_in((PACK_FOLDER, SHARED), name):
        return path
    raise ValueError(
        f'checkpoint "{name}" is not in models/{SHARED} nor models/{PACK_FOLDER}. Put it there, press R in the browser '
        "to refresh the list, and choose it again."
    )


def find_lora(name: str) -> str:
    """The full path of a LoRA; of a link whose target is not there, too: reading it says so.

    Args:
        name: with slashes, or with backslashes as Windows writes it.

    Raises:
        ValueError: no such file.
    """
    if path := find_in((LORAS,), name):
        return path
    raise ValueError(
        f'LoRA "{name}" is not in models/{LORAS}. Put it there, press R in the browser to refresh the list, and choose '
        "it again."
    )


def find_in(folders: Iterable[str], name: str) -> str | None:
    """The full path of a name in some of ComfyUI's model folders, of a broken link last; None = it is in none."""
    folders = tuple(folders)
    for spelling in _spellings(name):
        for folder in folders:
            if path := folder_paths.get_full_path(folder, spelling) or _find_folder(folder, spelling):
                return path
        for folder in folders:
            if path := _find_inside(folder, spelling, lambda path: is_broken_link(Path(path))):
                return path
    return None


def missing(find: Callable[[str], str], name: str | None) -> bool | str:
    """For a node's `validate_inputs`: True if `find` finds a file, or another node gives the name; else why not."""
    try:
        return name is None or bool(find(name))
    except ValueError as error:
        return str(error)


def _spellings(name: str) -> tuple[str, ...]:
    """A name as it is, and one of Windows as other systems write it."""
    return tuple(dict.fromkeys((str(name), str(name).replace("\\", "/"))))


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


def _find_folder(folder: str, name: str) -> str | None:
    return _find_inside(folder, name, os.path.isdir) if name.endswith("/") else None


def _find_inside(folder: str, name: str, is_it: Callable[[str], bool]) -> str | None:
    """The first path of a name in the roots of a folder that is what was asked for, and not outside of its root."""
    for root in map(os.path.abspath, folder_paths.get_folder_paths(folder)):
        path = os.path.abspath(os.path.join(root, name))
        if is_it(path) and os.path.commonpath([root, path]) == root:
            return path
    return None
