"""Reads files of torch.save as data alone, in both of its containers: zip, and the older sequence of pickles."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .containers import flatten, plain_values
from .verifier import ForeignClass, PickleVerifier

_LARGEST_PICKLE = 64 * 2**20
_MOST_MEMBERS = 200_000


def read_pickled(path: Path, headers_only: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and plain values of a file by torch.save. A zip file is memory-mapped; no code of a file is run.

    With `headers_only`, the tensors of a file that cannot be mapped have their shapes, but no content.

    Raises:
        ValueError: damaged, truncated, not a dictionary; needs more than plain tensors and values.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    # torch takes a path that ends so for safetensors, whatever is inside; a file that it cannot map goes by handle
    mapped = zipped and path.suffix != ".safetensors"
    skip = getattr(torch.serialization, "skip_data", contextlib.nullcontext)
    try:
        (_check_zip if zipped else _check_legacy)(path)
        with contextlib.ExitStack() as stack:
            if headers_only and not mapped:
                stack.enter_context(skip())
            stack.enter_context(torch.serialization.safe_globals(_NUMPY_STATE))
            source = path if mapped else stack.enter_context(path.open("rb"))
            stored = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except ForeignClass as error:
        raise ValueError(
            f'{path.name} is a pickled file that wants to load "{error}". That could run code, so it is refused; '
            "nothing of it was run. Get the weights as .safetensors, or convert them where the file was written."
        ) from error
    except Exception as error:  # damaged bytes make readers raise nearly anything
        raise ValueError(
            f"{path.name} is damaged or truncated, or no file of plain tensors ({_first_line(error)}). "
            "Nothing of it was run. Get the file again, best as .safetensors."
        ) from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path.name} holds a {type(stored).__name__}, not a dictionary of tensors. Choose another.")
    return flatten(stored, path.name), plain_values(stored)


def _numpy_state() -> list[Any]:
    """What a numpy random state needs, which trainers save beside the weights: arrays of plain numbers."""
    core: Any = np
    core = core._core if hasattr(core, "_core") else core.core  # numpy 2 and 1
    reconstruct = core.multiarray._reconstruct
    names = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    return [np.ndarray, np.dtype, type(np.dtype(np.uint32)), *((reconstruct, name) for name in names)]


_NUMPY_STATE = _numpy_state()


def _check_zip(path: Path) -> None:
    """Sizes of a zip file's members, and what its pickle asks for, before torch reads any of it.

    Raises:
        ValueError: not as torch writes it. (Others, from zipfile, mean damage.)
    """
    size = path.stat().st_size
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        _check_end(file, size)
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise ValueError(f"{len(members):,} members, more than {_MOST_MEMBERS:,}")
        names = {member.filename.casefold() for member in members}
        top = members[0].filename.split("/", 1)[0] + "/" if members else ""
        if len(names) < len(members) or any(not member.filename.startswith(top) for member in members):
            raise ValueError("two members of one name, or members outside of one folder")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename[:80]!r} is compressed, which torch never does")
            if _end_of(file, member) > archive.start_dir:
                raise ValueError(f"{member.filename[:80]!r} reaches beyond the end of the file")
        sizes = {member.filename.removeprefix(top): member.file_size for member in members}
        if sum(sizes.values()) > size:
            raise ValueError("members that overlap")
        if sizes.get("data.pkl", _LARGEST_PICKLE + 1) > _LARGEST_PICKLE:
            raise ValueError(f"no data.pkl of at most {_LARGEST_PICKLE >> 20} MiB in it")
        verifier = PickleVerifier()
        verifier.verify(io.BytesIO(archive.read(f"{top}data.pkl")))
    for key, needed in verifier.storages.items():
        if sizes.get(f"data/{key}", -1) < needed:  # torch would read on, into whatever follows
            raise ValueError(f"storage {key[:80]!r} has less than its {needed:,} bytes")


def _check_end(file: io.BufferedReader, size: int) -> None:
    """The directory's own record comes last, so that every reader of zip files finds the same one."""
    file.seek(max(0, size - 22))
    if not (end := file.read(22)).startswith(b"PK\x05\x06") or end[20:] != b"\0\0":
        raise ValueError("its zip directory is not at the end")


def _end_of(file: io.BufferedReader, member: zipfile.ZipInfo) -> int:
    """Where a member's data ends, by its local header, which is what torch uses."""
    file.seek(member.header_offset)
    mark, name, extra = struct.unpack("<4s22xHH", file.read(30))
    if mark != b"PK\x03\x04":
        raise ValueError(f"{member.filename[:80]!r} is not where the directory says")
    return member.header_offset + 30 + name + extra + member.file_size


def _check_legacy(path: Path) -> None:
    """`_check_zip` for the older container: five pickles (the fourth is the content), then each storage and its length.

    Raises:
        ValueError: not as torch writes it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(_LARGEST_PICKLE))
    verifier = PickleVerifier()
    verifier.verify(stream)
    if verifier.result != torch.serialization.MAGIC_NUMBER:
        raise ValueError("a pickle, but not by torch.save")
    for _ in range(4):
        verifier.verify(stream)
    needed = stream.tell() + sum(8 + storage for storage in verifier.storages.values())
    if needed > size:
        raise ValueError(f"{size:,} bytes, where its tensors need {needed:,}")


def _first_line(error: Exception) -> str:
    """The reason, without torch's advice to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if "weights_only" not in line]
    return (lines or [type(error).__name__])[0][:200]
