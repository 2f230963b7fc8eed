"""From files to tensors; pickled code is never executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .locate import Source, find_source
from .pickle.reader import read_pickled
from .safetensors_file import check_names, read_safetensors, read_safetensors_header

T = TypeVar("T")

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file under the names that it has for them (memory-mapped where possible), and its metadata.

    The format is detected from content, not from the file's name. Pickled files are read by torch's weights-only
    reader: data and tensors, no code. A diffusers folder or the index of shards gives the tensors of all its files.

    Raises:
        ValueError: missing, empty, truncated or not a checkpoint; a pickled file that needs more than data; shards that
            do not match their index.
    """
    return read_source(find_source(path))


def read_source(source: Source) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_checkpoint` of files that are located already."""
    parts = {file: _read_file(file) for file in source.files}
    tensors = _join({file: tensors for file, (tensors, _) in parts.items()}, source)
    return tensors, _join_metadata(metadata for _, metadata in parts.values())


def read_source_shapes(
    source: Source,
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    """Shapes, dtypes and metadata alone: reads no tensor data.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    parts = {file: _read_shapes(file) for file in source.files}
    shapes = _join({file: shapes for file, (shapes, _, _) in parts.items()}, source)
    dtypes = _join({file: dtypes for file, (_, dtypes, _) in parts.items()}, source)
    return shapes, dtypes, _join_metadata(metadata for _, _, metadata in parts.values())


def _join(parts: Mapping[Path, dict[str, T]], source: Source) -> dict[str, T]:
    """The entries of all files of a source, by name."""
    joined: dict[str, T] = {}
    for file, part in parts.items():
        if twice := joined.keys() & part.keys():
            raise ValueError(f"{source.name}: {file.name} and another shard both have {min(twice)}. Get them again.")
        joined |= part
    for name, file in (source.shards or {}).items():
        if name not in parts[source.folder / file]:
            raise ValueError(
                f"{source.name}: its shard {file} does not have {name[:80]}. They do not belong together, or one was "
                "not downloaded completely: get them again."
            )
    return joined


def _join_metadata(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    return {key: value for part in parts for key, value in part.items()}


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not _is_pickled(path):
        return read_safetensors(path)
    tensors, metadata = read_pickled(path)
    check_names({key: tuple(value.shape) for key, value in tensors.items()}, path)
    return tensors, metadata


def _read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    if not _is_pickled(path):
        return read_safetensors_header(path)
    tensors, metadata = read_pickled(path, headers_only=True)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    check_names(shapes, path)
    return shapes, {key: value.dtype for key, value in tensors.items()}, metadata


def _is_pickled(path: Path) -> bool:
    """Whether a file is of torch.save, not of safetensors.

    Raises:
        ValueError: it is neither, by its first bytes.
    """
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no such file ({path.parent}).")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path.name} is empty. The download probably stopped: get the file again.")
    if head[8:9] == b"{":  # before the others: the length at the start may look like a pickle's first byte
        return False
    if head.startswith((_ZIP, _PICKLE)):
        return True
    if head.startswith(b"GGUF"):
        raise ValueError(f"{path.name} is a GGUF file, which is not supported. Get the weights as .safetensors.")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path.name} is a Git LFS pointer, not the file itself. Download the file, or run git lfs pull."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path.name} is a web page, not a checkpoint. The download went wrong: get the file again.")
    raise ValueError(
        f"{path.name} is not a checkpoint: neither .safetensors nor a torch file (it starts with {head[:12]!r}). "
        "Get the file again, or choose another."
    )
