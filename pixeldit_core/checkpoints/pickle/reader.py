"""Reads files of torch.save as data alone, in both of its containers: zip, and the older sequence of pickles."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..training_state import explain_training_state
from ..weight_sets import find_groups
from ..wrappers import unwrap
from .archive import LARGEST_PICKLE, read_archive
from .containers import flatten, plain_values
from .contents import Contents
from .errors import ForeignClass, NotPlain, TooLong
from .machine import EARLY, MALFORMED, Machine
from .operations import load
from .values import Foreign, Skipped

# Words of keys under which a trainer keeps a network
_NETWORKS = tuple("model ema net generator state_dict denoiser transformer average shadow weights".split())
_FIRST_PART = 2**20  # bytes of an older file in which its pickles are looked for
_AGAIN = "Get the weights as .safetensors, or convert them where the file was written."


def read_pickled(path: Path, headers_only: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and plain values of a file by torch.save. The file is memory-mapped; no code of it is run.

    With `headers_only`, the tensors have their shapes and dtypes, but no content (they are on "meta").

    Raises:
        ValueError: damaged, truncated, not a dictionary; needs more than plain tensors and values.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    machine = Machine(b"")
    try:
        read = _read_zip if zipped else _read_legacy
        stored, contents = read(path, machine, headers_only)
    except ForeignClass as error:
        raise ValueError(_foreign(path.name, str(error), machine.outermost())) from error
    except TooLong as error:
        raise ValueError(
            f"{path.name} is not damaged, but too long to be read safely: {error}. Save the weights alone where it was "
            "written, best as .safetensors."
        ) from error
    except NotPlain as error:
        raise ValueError(f"{path.name} {error}. That is not read; nothing of it was run. {_AGAIN}") from error
    except Exception as error:  # damaged bytes make readers raise nearly anything
        raise ValueError(
            f"{path.name} is damaged or truncated ({_first_line(error)}). Nothing of it was run. Get the file again, "
            "best as .safetensors."
        ) from error
    stored = _dictionary(stored, path.name)
    tensors, values = flatten(stored, path.name), plain_values(stored)
    _check_objects(stored, path.name, bool(tensors))
    reason = explain_training_state(stored, path, empty=not tensors)
    if reason and not find_groups(map(unwrap, tensors)):
        raise ValueError(reason)
    return tensors if headers_only else _with_content(tensors, machine, contents, path.name), values


def _with_content(tensors: dict[str, Tensor], machine: Machine, contents: Contents, file: str) -> dict[str, Tensor]:
    """Tensors for their stand-ins; one that has two names is one tensor still."""
    places = machine.places.tensors
    try:
        made = {id(value): contents.tensor(places[id(value)]) for value in tensors.values()}
    except RuntimeError as error:  # of the system: memory, or a network drive
        raise ValueError(
            f"{file} is sound, but its weights could not be mapped into memory ({_first_line(error)}). Copy it to a "
            "disk of this computer, or make room in its memory."
        ) from error
    return {name: made[id(value)] for name, value in tensors.items()}


def _read_zip(path: Path, machine: Machine, headers_only: bool) -> tuple[Any, Contents]:
    archive = read_archive(path, headers_only)
    machine.data = archive.pickle
    stored = load(machine)
    for key, storage in machine.places.storages.items():
        if archive.members.get(f"data/{key}", (0, -1))[1] < storage.size:  # it would reach into whatever follows
            raise ValueError(f"storage {key[:80]!r} has less than its {storage.size:,} bytes")
    return stored, Contents(path, {key: archive.members[f"data/{key}"][0] for key in machine.places.storages})


def _read_legacy(path: Path, machine: Machine, headers_only: bool) -> tuple[Any, Contents]:
    """Five pickles (a number, a version, the system, the content, the order of storages), then each storage."""
    size = path.stat().st_size
    stored, order = _follow_legacy(path, size, machine)
    return stored, Contents(path, _legacy_starts(path, size, machine, order, headers_only))


def _follow_legacy(path: Path, size: int, machine: Machine) -> tuple[Any, Any]:
    """The content, and the order of storages.

    Nothing says how long the pickles are, and they are short beside the storages: a part of the file in which they do
    not end is followed again as a longer one.
    """
    length = _FIRST_PART
    while True:
        with path.open("rb") as file:
            machine.restart(file.read(length))
        try:
            return _pickles(machine)
        except ValueError as error:
            if str(error) in (EARLY, MALFORMED) and length < min(size, LARGEST_PICKLE):
                length = min(8 * length, LARGEST_PICKLE)
                continue
            if str(error) == EARLY and size > LARGEST_PICKLE:
                raise TooLong(f"more than {LARGEST_PICKLE >> 20} MiB of other values beside its weights") from error
            raise


def _pickles(machine: Machine) -> tuple[Any, Any]:
    if load(machine) != torch.serialization.MAGIC_NUMBER:
        raise NotPlain("has a pickle inside that is not by torch.save")
    load(machine)
    system = load(machine)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise NotPlain("has numbers in the byte order of another kind of computer")
    return load(machine), load(machine)


def _legacy_starts(path: Path, size: int, machine: Machine, order: Any, headers_only: bool) -> dict[str, int]:
    """Where each storage begins: one after the other, each with the number of its elements before it.

    Raises:
        ValueError: they are not there, or not those that the tensors need.
    """
    storages, at, starts = machine.places.storages, machine.at, dict[str, int]()
    needed = at + sum(8 + storage.size for storage in storages.values())
    if needed > size:
        raise ValueError(f"{size:,} bytes, where its tensors need {needed:,}")
    if type(order) is not list or sorted(map(str, order)) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    if headers_only:
        return starts
    with path.open("rb") as file:
        for key in order:
            file.seek(at)
            count = struct.unpack("<q", file.read(8))[0]
            if count * storages[key].dtype.itemsize != storages[key].size:
                raise ValueError(f"storage {key[:80]!r} has another size than its tensors need")
            starts[key] = at + 8
            at += 8 + storages[key].size
    return starts


def _dictionary(stored: Any, name: str) -> dict[Any, Any]:
    """The outermost dictionary.

    Raises:
        ValueError: it is none.
    """
    if isinstance(stored, dict) and (not isinstance(stored, Foreign) or stored):
        return stored
    if isinstance(stored, Foreign) and stored.has_tensors:
        raise ValueError(_whole_model(name, stored.name))
    kind = stored.name if isinstance(stored, (Foreign, Skipped)) else type(stored).__name__
    raise ValueError(f"{name} holds a {kind}, not a dictionary of tensors. Choose another.")


def _check_objects(stored: dict[Any, Any], name: str, has_tensors: bool) -> None:
    """Raises ValueError where a network, or its average, is there as an object, and other weights would be taken."""
    for key, value in dict.items(stored):
        is_network = not has_tensors or any(word in str(key).lower() for word in _NETWORKS)
        if is_network and isinstance(value, Foreign) and value.has_tensors and not value:
            raise ValueError(_whole_model(name, value.name))


def _whole_model(name: str, kind: str) -> str:
    return (
        f"{name} holds weights inside of a whole object of the class {kind[:200]}, not alone. That can only be read by "
        "running the code of the program that wrote it, so it is refused; nothing of it was run. In that program, save "
        "model.state_dict() in place of the model or average itself, best as .safetensors."
    )


def _foreign(name: str, wanted: str, outermost: Any) -> str:
    whole = (
        f" It holds a whole {outermost.name[:200]}, not its weights alone." if isinstance(outermost, Foreign) else ""
    )
    return (
        f'{name} is a pickled file that wants to load "{wanted}". That could run code, so it is refused; nothing of it '
        f"was run.{whole} {_AGAIN}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
