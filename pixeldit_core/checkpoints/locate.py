"""Which files a path refers to: a file, the shards of an index, the transformer of a diffusers folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = ".safetensors.index.json"
PIPELINES = ("model_index.json", "modular_model_index.json")
TRANSFORMER = "transformer"
# Names of the weights in a diffusers folder, best first
_WEIGHTS = tuple(
    stem + end
    for end in (".safetensors", INDEX, ".bin")
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
)
_LARGEST_JSON = 4 * 2**20  # an index of ten thousand tensors takes one


@dataclass(frozen=True)
class Source:
    """The files with the tensors of a checkpoint, and the folders that may have its configuration."""

    name: str  #                     for messages
    files: tuple[Path, ...]
    folder: Path  #                  of the weights: a config.json may be in it
    pipeline: Path | None = None  #  of a diffusers pipeline
    shards: dict[str, str] | None = None  #  the file of each tensor, by an index


def find_source(path: str | Path) -> Source:
    """The files that a path refers to.

    Args:
        path: a file of weights, a `*.safetensors.index.json`, or a folder: of a diffusers pipeline, or of its
            transformer.

    Raises:
        ValueError: a folder without weights; an index that is not readable or leads out of its folder; a shard that
            is missing.
    """
    path = Path(path)
    if not path.is_dir():
        pipeline = _pipeline_of(path.parent)
        if path.name.endswith(".index.json"):
            return _read_index(path, path.name, pipeline)
        return Source(path.name, (path,), path.parent, pipeline)
    pipeline = path if any((path / name).is_file() for name in PIPELINES) else _pipeline_of(path)
    for folder in (path / TRANSFORMER, path):
        for name in _WEIGHTS:
            file = folder / name
            if file.is_file():
                source = find_source(file)
                return Source(path.name, source.files, folder, pipeline, source.shards)
    raise ValueError(
        f"{path.name} is a folder without weights: in it, or in its {TRANSFORMER} folder, should be {_WEIGHTS[0]}. "
        "Choose a file, or a diffusers folder whose transformer was downloaded completely."
    )


def read_json(path: Path) -> dict[str, Any]:
    """A dictionary from a small JSON file.

    Raises:
        ValueError: too large, not readable as JSON, or not a dictionary.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path.name} is not readable as JSON ({error}). Get the file again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds a {type(values).__name__}, not a dictionary. Get the file again.")
    return values


def _pipeline_of(folder: Path) -> Path | None:
    """The folder of the pipeline whose transformer a folder is."""
    is_part = folder.name == TRANSFORMER and any((folder.parent / name).is_file() for name in PIPELINES)
    return folder.parent if is_part else None


def _read_index(path: Path, name: str, pipeline: Path | None) -> Source:
    if not path.is_file():
        raise ValueError(f"{name}: there is no such file ({path.parent}).")
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(file, str) for file in shards.values()):
        raise ValueError(f"{name} has no weight_map from tensors to files. Get the file again.")
    files = []
    for file in dict.fromkeys(shards.values()):
        # beside the index and nowhere else, whatever the index says
        if "/" in file or "\\" in file or ":" in file or not file.endswith(".safetensors"):
            raise ValueError(
                f"{name} names the file {file[:80]!r}; only .safetensors files beside it are read. Get the index again."
            )
        if not (path.parent / file).is_file():
            raise ValueError(f"{name}: its shard {file[:80]} is not there. Download all of them into the same folder.")
        files.append(path.parent / file)
    return Source(name, tuple(files), path.parent, pipeline, shards)
