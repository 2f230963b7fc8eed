"""The zip container of torch.save: where its members are, before anything of it is read."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .errors import NotPlain, TooLong

LARGEST_PICKLE = 64 * 2**20
_MOST_MEMBERS = 200_000
_END = b"PK\x05\x06"  #    of the record that says where a zip file's directory is
_TAIL = 2**16 + 22  #     bytes in which readers of zip files look for it
_LOCAL = 30  #            bytes before the name of a member, where it begins
_READ = ("data.pkl", "byteorder")


@dataclass
class Archive:
    """Members of a zip file by name, each with its place in the file and its size; and the pickle among them."""

    members: dict[str, tuple[int, int]]
    pickle: bytes


def read_archive(path: Path, headers_only: bool = False) -> Archive:
    """Opens a zip file as torch.save writes it.

    Args:
        headers_only: the place of a member other than the pickle is not looked up, which would be a look at every part
            of the file: it is the earliest that the directory allows.

    Raises:
        NotPlain, TooLong: it is none, or a large one.
        ValueError: it is damaged; others, of zipfile, mean the same.
    """
    size = path.stat().st_size
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        _check_end(file, size)
        listed = archive.infolist()
        if len(listed) > _MOST_MEMBERS:
            raise TooLong(f"{len(listed):,} members, more than {_MOST_MEMBERS:,}")
        top = listed[0].filename.split("/", 1)[0] + "/" if listed else ""
        _check_names([member.filename for member in listed], top)
        _check_kind({member.filename.removeprefix(top) for member in listed})
        members = {}
        for member in listed:
            name = member.filename.removeprefix(top)
            _check_stored(member)
            start = member.header_offset + _LOCAL
            if name in _READ or not headers_only:
                start = _start_of(file, member)
            if start + member.file_size > archive.start_dir:
                raise ValueError(f"{member.filename[:80]!r} reaches beyond the end of the file")
            members[name] = (start, member.file_size)
        if sum(length for _, length in members.values()) > size:
            raise ValueError("members that overlap")
        _check_pickle(file, members)
        return Archive(members, _read(file, *members["data.pkl"]))


def _check_end(file: io.BufferedReader, size: int) -> None:
    """The directory's own record is the only one at the end, so that every reader of zip files finds the same one.

    Bytes after it, which downloaders and editors leave, are ignored.
    """
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    at = len(tail) - 22 if tail[-22:-18] == _END else tail.find(_END)
    if at < 0 or tail.find(_END, at + 4) >= 0 or tail[at + 20 : at + 22] != b"\0\0":
        raise ValueError("its zip directory is not at the end")


def _check_names(names: list[str], top: str) -> None:
    if len({name.casefold() for name in names}) < len(names) or any(not name.startswith(top) for name in names):
        raise NotPlain("is a zip archive with two members of one name, or members outside of one folder")


def _check_kind(names: set[str]) -> None:
    """Refuses what other programs, and torch for another purpose, put into a zip file."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise NotPlain("is a TorchScript program (of torch.jit.save), which is code with its weights inside")
    if "data.pkl" not in names:
        raise NotPlain("is a zip archive without data.pkl, so torch.save did not write it")


def _check_pickle(file: io.BufferedReader, members: dict[str, tuple[int, int]]) -> None:
    if members["data.pkl"][1] > LARGEST_PICKLE:
        raise TooLong(f"more than {LARGEST_PICKLE >> 20} MiB of other values beside its weights")
    order = _read(file, *members["byteorder"])[:8] if "byteorder" in members else b"little"
    if order != b"little":
        raise NotPlain(f"has numbers in the byte order {order.decode('latin-1')!r}, of another kind of computer")


def _check_stored(member: zipfile.ZipInfo) -> None:
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise NotPlain(f"has a compressed member ({member.filename[:80]!r} is compressed, which torch never does)")


def _start_of(file: io.BufferedReader, member: zipfile.ZipInfo) -> int:
    """Where a member's data begins, by its local header, which is what torch uses."""
    file.seek(member.header_offset)
    mark, name, extra = struct.unpack("<4s22xHH", file.read(_LOCAL))
    if mark != b"PK\x03\x04":
        raise ValueError(f"{member.filename[:80]!r} is not where the directory says")
    return member.header_offset + _LOCAL + name + extra


def _read(file: io.BufferedReader, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)
