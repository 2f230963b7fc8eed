"""Which files a path refers to: a file, the shards of an index, the transformer of a diffusers folder."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .folder import (
    INDEX,
    SHARD,
    TRANSFORMER,
    WEIGHTS,
    candidates,
    explain_distributed,
    explain_folder,
    find_snapshot,
    in_folder,
    index_of,
    inner_folders,
    list_names,
    usual_weights,
)
from .foreign import HEAD, explain_foreign
from .links import check_file, explain_missing, explain_os_error

log = logging.getLogger(__name__)

PIPELINES = ("model_index.json", "modular_model_index.json")
_MOST_SHARDS = 10_000
_LARGEST_JSON = 4 * 2**20  # an index of ten thousand tensors takes one
_DEEPEST = 2  # folders within a folder


@dataclass(frozen=True)
class Source:
    """The files with the tensors of a checkpoint, and the folders that may have its configuration."""

    name: str  #                     for messages
    files: tuple[Path, ...]
    folder: Path  #                  of the weights: a config.json may be in it
    pipeline: Path | None = None  #  of a diffusers pipeline
    shards: dict[str, str] | None = None  #  the file of each tensor, by an index

    @property
    def chosen_folder(self) -> str:
        """Name of the folder that was chosen; "" where a file was."""
        is_file = self.name.endswith(".json") or any(file.name == self.name for file in self.files)
        return "" if is_file else self.name.partition("/")[0]


def find_source(path: str | Path) -> Source:
    """The files that a path refers to.

    Args:
        path: a file of weights, one of several shards, the index of shards (`*.safetensors.index.json`,
            `*.bin.index.json`, or of a variant, `*.safetensors.index.fp16.json`), or a folder: of a diffusers pipeline,
            of its transformer, of shards, with one checkpoint in it, or of a model in the Hugging Face cache.

    Raises:
        ValueError: a folder without weights, or with several checkpoints; a distributed checkpoint; an index that is
            not readable or leads out of its folder; a shard that is missing.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise ValueError(explain_os_error(path, error)) from error
    if is_folder:
        try:
            return _find_in_folder(path)
        except ValueError as error:
            file = str(error).partition(":")[0].partition(" is ")[0]
            raise ValueError(in_folder(str(error), path.name, file)) from error
    pipeline = _pipeline_of(path.parent)
    if INDEX.fullmatch(path.name) or path.name.endswith(".index.json"):
        return _read_index(path, path.name, pipeline)
    if (shard := SHARD.fullmatch(path.name)) and int(shard["count"]) > 1:
        return _join_shards(path, shard, pipeline)
    return Source(path.name, (path,), path.parent, pipeline)


def _find_in_folder(path: Path, depth: int = 0) -> Source:
    if snapshot := find_snapshot(path):
        source = _find_in_folder(snapshot, depth)
        return replace(source, name=source.name.replace(snapshot.name, path.name, 1))  # not a checksum's
    pipeline = path if any((path / name).is_file() for name in PIPELINES) else _pipeline_of(path)
    folders = {folder: _names_of_files(folder) for folder in (path / TRANSFORMER, path)}
    for folder, names in folders.items():
        if name := usual_weights(names):
            source = find_source(folder / name)
            _log_average(folder)
            return Source(path.name, source.files, folder, pipeline, source.shards)
    if reason := explain_distributed(path):
        raise ValueError(reason)
    for folder, names in folders.items():
        if len(found := candidates(names)) == 1:
            source = find_source(folder / found[0])
            return Source(f"{path.name}/{found[0]}", source.files, folder, pipeline, source.shards)
    inner = [] if any(map(candidates, folders.values())) or depth >= _DEEPEST else inner_folders(path)
    if len(inner) == 1:
        source = _find_in_folder(inner[0], depth + 1)
        return replace(source, name=f"{path.name}/{source.name}")
    raise ValueError(explain_folder(path))


def _log_average(folder: Path) -> None:
    """Say where the average is that diffusers' trainings write into a folder of its own."""
    average = folder.with_name(f"{folder.name}_ema")
    if folder.name == TRANSFORMER and average.is_dir():
        log.warning(
            "%s: took its %s. The averaged (EMA) weights of that training are in %s: choose that folder to load them.",
            folder.parent.name, folder.name, average.name,
        )  # fmt: skip


def _names_of_files(folder: Path) -> list[str]:
    """Files of a folder, and links whose target is not there: these are explained when they are read."""
    names = (name for name in list_names(folder) if name.lower().endswith((*WEIGHTS, ".json")))
    return [name for name in names if not (folder / name).is_dir()]


def _join_shards(path: Path, match: re.Match[str], pipeline: Path | None) -> Source:
    """All shards of which a path is one: by their index where it is there, else by their numbers."""
    folder, count = path.parent, int(match["count"])
    names = list_names(folder)
    if index := index_of(path.name, names):
        source = _read_index(folder / index, index, pipeline)
        if path in source.files:
            return Source(path.name, source.files, folder, pipeline, source.shards)
    present = {
        int(other["number"]): name
        for name in names
        if (other := SHARD.fullmatch(name)) and all(other[part] == match[part] for part in ("stem", "count", "end"))
    }
    first = 0 if 0 in present else 1  # some programs count from 0
    missing = [number for number in range(first, first + min(count, _MOST_SHARDS)) if number not in present]
    if missing and path.name in names:
        lacking = f"{match['stem']}-{missing[0]:0{len(match['number'])}}-of-{match['count']}{match['end']}"
        raise ValueError(
            f"{path.name} is one of {count} parts of a checkpoint, and {len(missing)} of them are not beside it, such "
            f"as {lacking}. Download all of them into the same folder."
        )
    files = (folder / present[number] for number in sorted(present)) if not missing else (path,)
    return Source(path.name, tuple(files), folder, pipeline)


def read_json(path: Path) -> dict[str, Any]:
    """A dictionary from a small JSON file.

    Raises:
        ValueError: too large, not readable as JSON, or not a dictionary.
    """
    check_file(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(_explain_json(path, error)) from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds a {type(values).__name__}, not a dictionary. Get the file again.")
    return values


def _explain_json(path: Path, error: Exception) -> str:
    """Why a file cannot be read as JSON: it may be a server's answer, or cut off."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as reason:
        return explain_os_error(path, reason)
    if not head.strip():
        return f"{path.name} is empty. The download probably stopped: get the file again."
    other = None if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else explain_foreign(path, head)
    return other or f"{path.name} is not readable as JSON ({error}). Get the file again."


def _pipeline_of(folder: Path) -> Path | None:
    """The folder of the pipeline whose transformer a folder is."""
    is_part = folder.name == TRANSFORMER and any((folder.parent / name).is_file() for name in PIPELINES)
    return folder.parent if is_part else None


def _read_index(path: Path, name: str, pipeline: Path | None) -> Source:
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(file, str) for file in shards.values()):
        raise ValueError(f"{name} has no weight_map from tensors to files. Get the file again.")
    match = INDEX.fullmatch(name)
    ending = f".{match['kind']}" if match else ".safetensors"
    files = dict.fromkeys(shards.values())
    for file in files:
        # beside the index and nowhere else, whatever the index says
        if "/" in file or "\\" in file or ":" in file or not file.endswith(ending):
            raise ValueError(
                f"{name} names the file {file[:80]!r}; only {ending} files beside it are read. Get the index again."
            )
    missing = [file for file in files if not (path.parent / file).is_file()]
    if missing:
        reason = explain_missing(path.parent / missing[0])
        raise ValueError(
            f"{name}: its shard {missing[0][:80]} is not there ({len(missing)} of {len(files)} are missing). "
            + ("Download all of them into the same folder." if "no such file" in reason else reason)
        )
    return Source(name, tuple(path.parent / file for file in files), path.parent, pipeline, shards)
