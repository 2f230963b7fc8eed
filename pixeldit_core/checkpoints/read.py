"""From a file to tensors, without ever running code that a file brings along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .locate import Source, find_source
from .pickle.reader import read_pickled

Shapes = dict[str, tuple[int, ...]]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LARGEST_HEADER = 32 * 2**20  # of a .safetensors file; that of ten thousand tensors takes one
_LONGEST_NAME = 512
_DIMENSIONS = 16
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file under the names it has for them (memory-mapped where the format allows), and its metadata.

    The format is told by content, not by the file's name. Pickled files are read by torch's weights-only reader:
    data and tensors, no code. A diffusers folder or the index of shards stands for the tensors of all its files.

    Raises:
        ValueError: missing, empty, truncated or not a checkpoint; a pickled file that wants more than data; shards that
            do not make up their index.
    """
    return read_source(find_source(path))


def read_source(source: Source) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same for files that are found already."""
    parts = {file: _read_file(file) for file in source.files}
    return _join({file: tensors for file, (tensors, _) in parts.items()}, source), _metadata(parts.values())


def read_source_shapes(source: Source) -> tuple[Shapes, dict[str, torch.dtype], dict[str, str]]:
    """Shapes, dtypes and metadata alone: reads no tensor data.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    parts = {file: _read_shapes(file) for file in source.files}
    shapes, dtypes = (_join({file: part[kind] for file, part in parts.items()}, source) for kind in (0, 1))
    return shapes, dtypes, _metadata(parts.values())


def _join(parts: dict[Path, dict[str, Any]], source: Source) -> dict[str, Any]:
    """What all files of a source have, by name."""
    joined: dict[str, Any] = {}
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


def _metadata(parts: Iterable[tuple]) -> dict[str, str]:
    return {key: value for part in parts for key, value in part[-1].items()}


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if _is_pickled(path):
        tensors, metadata = read_pickled(path)
        _check_names({key: tuple(value.shape) for key, value in tensors.items()}, path)
        return tensors, metadata
    with _open_safetensors(path) as file:
        _header(file, path)
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})


def _read_shapes(path: Path) -> tuple[Shapes, dict[str, torch.dtype], dict[str, str]]:
    if not _is_pickled(path):
        with _open_safetensors(path) as file:
            return *_header(file, path), dict(file.metadata() or {})
    tensors, metadata = read_pickled(path, headers_only=True)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    _check_names(shapes, path)
    return shapes, {key: value.dtype for key, value in tensors.items()}, metadata


def _is_pickled(path: Path) -> bool:
    """Whether torch's own reader is the one for this file; refuses at once what no reader can read."""
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no such file ({path.parent}).")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path.name} is empty. The download probably stopped: get the file again.")
    if head[8:9] == b"{":  # before the others: the length in front of it may look like a pickle's first byte
        return False
    if head.startswith((_ZIP, _PICKLE)):
        return True
    if head.startswith(b"GGUF"):
        raise ValueError(f"{path.name} is a GGUF file, which is not read here. Get the weights as .safetensors.")
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


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """safetensors' reader of a file; whatever it raises is told as damage, with the file's name."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except _Told:
        raise
    except Exception as error:  # SafetensorError, OSError, and what torch says of an absurd shape
        what = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path.name} is a damaged or truncated .safetensors file ({what}). Get the file again."
        ) from error


class _Told(ValueError):
    """An error whose text is complete."""


def _check_header(path: Path) -> None:
    """The length of the header, before anything of that length is read, and that no name comes twice.

    safetensors' reader takes the last of two entries of one name without a word.

    Raises:
        ValueError: absurd, or two of one name. What else is wrong is found by safetensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LARGEST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"a header of {length:,} bytes")
        header = file.read(length)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"its header has {max(keys, key=keys.count)[:80]!r} twice")
        return found

    json.loads(header, object_pairs_hook=once)


def _header(file: Any, path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype]]:
    """Shapes and dtypes of an open .safetensors file."""
    shapes, dtypes = {}, {}
    for key in file.keys():
        part = file.get_slice(key)
        shapes[key], dtype = tuple(part.get_shape()), part.get_dtype()
        if dtype not in _DTYPES:
            raise _Told(
                f"{path.name}: tensor {key[:80]} is of the dtype {dtype}, which is not read here. "
                "Get the weights as bfloat16 or float32."
            )
        dtypes[key] = _DTYPES[dtype]
    _check_names(shapes, path)
    return shapes, dtypes


def _check_names(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """No network has such names and shapes, and whatever works with them afterwards need not fear their length.

    Raises:
        ValueError: a very long name, or very many or large dimensions.
    """
    for key, shape in shapes.items():
        if len(key) > _LONGEST_NAME or len(shape) > _DIMENSIONS or max(shape, default=0) >= 2**48:
            raise _Told(
                f"{path.name} is damaged or not of a network: tensor {key[:80]!r} has a name of {len(key)} characters "
                f"and a shape of {len(shape)} dimensions, starting {list(shape[:4])}. Get the file again."
            )
