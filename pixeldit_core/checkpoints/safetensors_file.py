"""One `.safetensors` file: its tensors, or its header alone, checked before safetensors reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .links import explain_os_error, is_no_memory
from .padded_safetensors import PaddedSafetensors, parse_entries

log = logging.getLogger(__name__)

_LARGEST_HEADER = 32 * 2**20  # that of ten thousand tensors takes one MiB
_LONGEST_NAME = 512
_OFFSETS = b'"data_offsets"'
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


class FileError(ValueError):
    """An error whose text is complete and has the file's name."""


def read_safetensors(path: Path, ending: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, memory-mapped, and metadata. Bytes after the tensors are ignored, which is logged.

    Args:
        ending: of the names of the tensors that are wanted.

    Raises:
        ValueError: damaged or truncated, a dtype that is not supported.
    """
    with _open(path) as (file, header):
        _read_header(header, path)
        if isinstance(file, PaddedSafetensors):
            log.info("%s has bytes after its tensors, which are ignored: every tensor is there.", path.name)
        names = (key for key in file.keys() if key.endswith(ending))
        return {key: file.get_tensor(key) for key in names}, dict(file.metadata() or {})


def read_safetensors_header(
    path: Path,
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    """Shapes, dtypes and metadata; raises as `read_safetensors`."""
    with _open(path) as (file, header):
        shapes, dtypes = _read_header(header, path)
        return shapes, dtypes, dict(file.metadata() or {})


def check_names(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Refuse names and shapes that no network has, so that all code after this is safe from their length.

    Raises:
        ValueError: a very long name, or very many or large dimensions.
    """
    for key, shape in shapes.items():
        if len(key) > _LONGEST_NAME or len(shape) > _DIMENSIONS or max(shape, default=0) >= 2**48:
            raise FileError(
                f"{path.name} is damaged or not of a network: tensor {key[:80]!r} has a name of {len(key)} characters "
                f"and a shape of {len(shape)} dimensions, starting {list(shape[:4])}. Get the file again."
            )


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """safetensors' reader of a file, or ours, and the header, which it has checked.

    Whatever it raises is reported as damage, with the file's name.
    """
    try:
        header, start = _load_header(path)
        if padded := _open_padded(path, header, start):
            yield padded, header
            return
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file, header
    except FileError:
        raise
    except Exception as error:  # also SafetensorError, and torch's errors for an absurd shape
        if isinstance(error, OSError) or is_no_memory(error):
            raise ValueError(explain_os_error(path, error)) from error
        if _is_not_utf8(path):
            raise ValueError(
                f"{_printable(path.name)} cannot be opened under this name: it has letters in an old encoding. "
                "Rename the file, with plain letters."
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path.name} is a damaged or truncated .safetensors file ({reason}). Get the file again."
        ) from error


def _is_not_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # safetensors opens no file of such a name
        return True
    return False


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()


def _load_header(path: Path) -> tuple[Any, int]:
    """The header as JSON, and where it ends. Its length is checked before, and that no name is in it twice.

    safetensors' own reader silently takes the last of two entries of one name.

    Raises:
        ValueError: an absurd length, or two entries of one name. safetensors finds the rest.
    """
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if length > _LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        if length > size - 8:
            raise FileError(_truncated(path, size, f"its header alone takes {length + 8:,}"))
        header = file.read(length)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"its header has {max(keys, key=keys.count)[:80]!r} twice")
        return entries

    values = json.loads(header)
    # each tensor has one of these; where their number is another, or letters are escaped, every name is looked at
    others = isinstance(values, dict) and "__metadata__" in values
    if b"\\" in header or not isinstance(values, dict) or header.count(_OFFSETS) != len(values) - others:
        values = json.loads(header, object_pairs_hook=unique)
    return values, 8 + length


def _open_padded(path: Path, header: Any, start: int) -> PaddedSafetensors | None:
    """A reader of a sound file with bytes after its tensors; None for others, which safetensors judges.

    Raises:
        FileError: the tensors go on after the end of the file.
    """
    size = path.stat().st_size
    try:
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        whole = start + max(ends, default=0)
        if size == whole:
            return None
        parse_entries(header, _DTYPES)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    if size < whole:
        raise FileError(_truncated(path, size, f"the whole file has {whole:,}"))
    return PaddedSafetensors(path, header, start, _DTYPES)


def _truncated(path: Path, size: int, whole: str) -> str:
    return (
        f"{path.name} is damaged or truncated: {size:,} bytes are there, {whole}. Its download or copy did not finish. "
        "Get the file again."
    )


def _read_header(header: dict[str, Any], path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype]]:
    """Shapes and dtypes of an open file."""
    shapes, dtypes = {}, {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        shapes[key], dtype = tuple(entry["shape"]), entry["dtype"]
        if dtype not in _DTYPES:
            raise FileError(
                f"{path.name}: tensor {key[:80]} has the dtype {dtype}, which is not supported. "
                "Get the weights as bfloat16 or float32."
            )
        dtypes[key] = _DTYPES[dtype]
    check_names(shapes, path)
    return shapes, dtypes
