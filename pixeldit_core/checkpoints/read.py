"""From files to tensors; pickled code is never executed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .archives import explain_zip
from .downloads import check_mark, check_zeros, explain_end, explain_mark, explain_unfinished
from .folder import in_folder
from .foreign import HEAD, explain_foreign, explain_name, explain_part
from .links import check_file, explain_os_error
from .locate import Source, find_source
from .pickle.reader import read_pickled
from .safetensors_file import check_names, read_safetensors, read_safetensors_header
from .training_state import check_training_state
from .weight_sets import find_groups
from .wrappers import unwrap

T = TypeVar("T")

_LONGEST_HEADER = 2**40  # bytes: the first bytes of an archive, with a "{" after them by chance, say more
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file under the names that it has for them (memory-mapped where possible), and its metadata.

    The format is detected from content, not from the file's name. Pickled files are read as data
    alone, no code of them is run. A diffusers folder or the index of shards gives the tensors of all its files.

    Raises:
        ValueError: missing, empty, truncated or not a checkpoint; a pickled file that needs more than data; shards that
            do not match their index.
    """
    return read_source(find_source(path))


def read_source(source: Source) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`read_checkpoint` of files that are located already."""
    parts = {file: _named(source, file, _read_file) for file in source.files}
    tensors = _join({file: tensors for file, (tensors, _) in parts.items()}, source)
    return tensors, _join_metadata(metadata for _, metadata in parts.values())


def read_source_shapes(
    source: Source,
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    """Shapes, dtypes and metadata alone: reads no tensor data.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    parts = {file: _named(source, file, _read_shapes) for file in source.files}
    shapes = _join({file: shapes for file, (shapes, _, _) in parts.items()}, source)
    dtypes = _join({file: dtypes for file, (_, dtypes, _) in parts.items()}, source)
    return shapes, dtypes, _join_metadata(metadata for _, _, metadata in parts.values())


def read_source_texts(source: Source, ending: str) -> dict[str, Tensor]:
    """The tensors whose names end so, and no others: for small ones that describe the rest.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    parts = {file: _named(source, file, lambda file: _read_texts(file, ending)) for file in source.files}
    return {name: tensor for part in parts.values() for name, tensor in part.items()}


def _named(source: Source, file: Path, read: Callable[[Path], T]) -> T:
    """What `read` gives; where it refuses a file of a folder, the message has the folder's name, too."""
    try:
        return read(file)
    except ValueError as error:
        raise ValueError(in_folder(str(error), source.chosen_folder, file.name)) from error


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
    if _is_pickled(path):
        tensors, metadata = _explained(path, read_pickled)
        _check_whole(tensors, path)
        check_training_state(tensors, path)
        check_names({key: tuple(value.shape) for key, value in tensors.items()}, path)
    else:
        tensors, metadata = _explained(path, read_safetensors)
    check_zeros(tensors, path)
    return tensors, metadata


def _read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    if not _is_pickled(path):
        return _explained(path, read_safetensors_header)
    tensors, metadata = _explained(path, lambda path: read_pickled(path, headers_only=True))
    _check_whole(tensors, path)
    check_training_state(tensors, path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    check_names(shapes, path)
    return shapes, {key: value.dtype for key, value in tensors.items()}, metadata


def _read_texts(path: Path, ending: str) -> dict[str, Tensor]:
    if not _is_pickled(path):
        return _explained(path, lambda path: read_safetensors(path, ending))[0]
    tensors, _ = _explained(path, read_pickled)
    return {name: tensor for name, tensor in tensors.items() if name.endswith(ending)}


def _check_whole(tensors: Iterable[str], path: Path) -> None:
    """Refuse a file that by its name is a part of a checkpoint, and has no whole network."""
    if (reason := explain_part(path)) and not find_groups(map(unwrap, tensors)):
        raise ValueError(reason)


def _explained(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` gives; where it refuses a file that is unfinished, or an archive of others, that is the reason."""
    try:
        return read(path)
    except ValueError as error:
        with path.open("rb") as file:
            zipped = file.read(4) == _ZIP
        reason = explain_zip(path) if zipped else None
        reason = reason or explain_part(path)
        if not reason and any(word in str(error) for word in ("damaged", "truncated")):
            reason = explain_mark(path) or explain_end(path)
        if not reason:
            raise
        raise ValueError(reason) from error


def _is_pickled(path: Path) -> bool:
    """Whether a file is of torch.save, not of safetensors.

    Raises:
        ValueError: it is neither, by its name or its first bytes; it cannot be read.
    """
    check_file(path)
    check_mark(path)
    if reason := explain_name(path):
        raise ValueError(reason)
    try:
        with path.open("rb") as file:
            head = file.read(64)
            is_short = int.from_bytes(head[:8], "little") < _LONGEST_HEADER
            if head[8:9] == b"{" and not _is_text(head[:8]) and (is_short or not explain_foreign(path, head)):
                return False  # before the others: the length at the start may look like a pickle's first byte
            if head.startswith((_ZIP, _PICKLE)):
                return True
            head += file.read(HEAD)
    except OSError as error:
        raise ValueError(explain_os_error(path, error)) from error
    reason = explain_part(path) if head.strip(b"\0") else None
    raise ValueError(reason or _explain(path, head))


def _explain(path: Path, head: bytes) -> str:
    """Why a file without weights is none, as whole sentences with its name."""
    if not head.strip(b"\0") and (reason := explain_unfinished(path)):
        return reason
    if not head:
        return f"{path.name} is empty. The download probably stopped: get the file again."
    if not head.strip(b"\0"):
        return (
            f"{path.name} is not a checkpoint: it starts with {len(head):,} zeros. Its download reserved the space and "
            "did not finish. Get the file again."
        )
    return explain_foreign(path, head) or (
        f"{path.name} is not a checkpoint: neither .safetensors nor a torch file (it starts with {head[:12]!r}). "
        "Get the file again, or choose another."
    )


def _is_text(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
