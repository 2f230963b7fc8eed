"""Archives in the place of weights, and what is in them, as far as that can be seen without unpacking."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path

from ..text import printable, shorten_list
from .answers import explain_text
from .folder import WEIGHTS

_SHOWN = 3
_LARGEST_DIRECTORY = 8 * 2**20  # of a zip file; that of a torch file with ten thousand tensors takes one MiB
_MOST_MEMBERS = 64  #             of a tar archive that are looked at
_TAR = 257  #                     where its magic is

# Archives by their first bytes; gzip, zip and tar are looked into
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"]\0\0": "lzma",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x50\x2a\x4d\x18": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"RE~^": "rar",
    b"070701": "cpio",
    b"!<arch>\n": "deb",
    b"\xed\xab\xee\xdb": "rpm",
    b"xar!": "xar",
    b"hsqs": "squashfs",
    b"x\x01": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"LZIP": "lzip",
    b"MSCF": "cab",
    b"\x1f\x9d": "compress",
    b"PK\x05\x06": "zip, empty",
    b"PK\x07\x08": "zip, a part of several",
}
_NESTED = (".zip", ".7z", ".rar", ".tar", ".gz", ".bz2", ".xz", ".zst", ".001")  # archives in archives
_ENDINGS = {"gzip": "gz", "bzip2": "bz2", "zstd": "zst", "lzma": "lzma"}


def explain_archive(path: Path, head: bytes) -> str | None:
    """That a file is an archive, and what to do, as whole sentences with its name; None = it is none.

    Zip archives are for `explain_zip`: torch's own files are some, too.
    """
    kind = next((kind for start, kind in _ARCHIVES.items() if head.startswith(start)), None)
    if kind == "gzip":
        return _explain_gzip(path, head)
    if kind:
        return _unpack(path.name, kind, [])
    if head[_TAR:].startswith(b"ustar") or (path.suffix == ".tar" and head[100:107].strip(b" \0").isdigit()):
        return _unpack(path.name, "tar", [name for name in _tar_members(path) if not _is_clutter(name)])
    return None


def explain_zip(path: Path) -> str | None:
    """What a zip file is that torch.save did not write, as whole sentences with its name; None = it may be torch's."""
    members = _zip_members(path)
    names = [member.filename for member in members]
    if not names:
        return _explain_half_zip(path)
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return (
            f"{path.name} is a TorchScript program (torch.jit.save), not plain weights, and not supported: it would "
            "run code. Get the weights as .safetensors."
        )
    if "data.pkl" in inner:
        return _explain_packed(path, members)
    if all(name.endswith(".npy") for name in names):
        return (
            f"{path.name} is an archive of numpy arrays (.npz), which is not supported. Get the weights as "
            ".safetensors."
        )
    if "archive_format" in inner or any(name.endswith("models/model.json") for name in names):
        return f"{path.name} is a program of torch.export, not plain weights. Get the weights as .safetensors."
    if any(name.endswith(".weights.h5") for name in names):
        return f"{path.name} is a Keras model, which is not supported. Get the weights as .safetensors."
    return _unpack(path.name, "zip", [name for name in names if not _is_clutter(name)])


def _explain_half_zip(path: Path) -> str | None:
    """That the end of an archive is missing, by its first member; None for torch's own, which nobody unpacks."""
    with path.open("rb") as file:
        start = file.read(30 + 512)
    if len(start) < 30:
        return None
    compressed = int.from_bytes(start[8:10], "little") != zipfile.ZIP_STORED
    name = _member(start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace"))
    if not name or not (compressed or name.lower().endswith(WEIGHTS)) or name.endswith("data.pkl"):
        return None
    return (
        f"{path.name} is an archive (zip) that is not complete: its end is missing, so its download or copy did not "
        f"finish. Get it again, unpack it, and choose the file of weights inside (first in it is {name})."
    )


def _explain_packed(path: Path, members: list[zipfile.ZipInfo]) -> str | None:
    """That torch's file was unpacked and packed again: it is compressed then."""
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if stored and not any(member.filename.startswith("__MACOSX/") for member in members):
        return None
    why = "it has files of macOS inside" if stored else "it is compressed, which torch never does"
    return (
        f"{path.name} was unpacked and packed again by an archive program: {why}. Get the original file again, and do "
        "not unpack it."
    )


def _is_clutter(name: str) -> bool:
    return name.endswith("/") or name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def _unpack(name: str, kind: str, members: list[str]) -> str:
    """The message for an archive, with the weights among the members that are seen."""
    weights = [member for member in map(_member, members) if member.lower().endswith(WEIGHTS)]
    if members and not weights and not any(member.lower().endswith(_NESTED) for member in members):
        inside = shorten_list(map(_member, members), _SHOWN)
        return f"{name} is an archive ({kind}) without weights: in it are {inside}. Choose another file."
    choose = "choose the file of weights inside, which ends with .safetensors in most cases"
    if weights:
        choose = f"choose {shorten_list(weights, _SHOWN)} from it" if len(weights) == 1 else ""
        choose = choose or f"choose one of {shorten_list(weights, _SHOWN)}"
    ending = _ENDINGS.get(kind, kind.partition(",")[0])
    rename = "" if name.lower().endswith(f".{ending}") else f" If it does not open, let its name end with .{ending}."
    return f"{name} is an archive ({kind}): unpack it, with 7-Zip for example, and {choose}.{rename}"


def _member(text: str) -> str:
    return printable(text)[-80:]


def _explain_gzip(path: Path, head: bytes) -> str:
    """A gzip file by what is in it: a server's answer, a tar archive, or one file, with its name where it is stored."""
    try:
        inner = zlib.decompressobj(31).decompress(head, 4096)
    except zlib.error:
        inner = b""
    if inner and (text := explain_text(path, inner)):
        return text
    if inner[_TAR:].startswith(b"ustar"):
        return _unpack(path.name, "gzip", [_tar_name(inner)] if _tar_name(inner).lower().endswith(WEIGHTS) else [])
    stored = re.match(rb"\x1f\x8b\x08[\x08-\x0b].{6}([^\0]{1,200})\0", head, re.DOTALL)
    name = stored[1].decode("utf-8", "replace") if stored else ""
    return _unpack(path.name, "gzip", [name] if name.lower().endswith(WEIGHTS) else [])


def _tar_name(block: bytes) -> str:
    return block[:100].split(b"\0")[0].decode("utf-8", "replace")


def _tar_members(path: Path) -> list[str]:
    """Names of the files of a tar archive; empty where there are more than are looked at, and no weights yet."""
    names, longer = [], ""
    with path.open("rb") as file:
        for _ in range(_MOST_MEMBERS):
            block = file.read(512)
            if len(block) < 512 or not (name := _tar_name(block)):
                return names
            size, kind = block[124:135].strip(b" \0"), block[156:157]
            if not re.fullmatch(rb"[0-7]+", size):
                return names
            length = int(size, 8)
            if kind in b"xL":  # the next one's name, where it is long
                longer = _longer_name(file.read(min(length, 4096)))
                file.seek(-min(length, 4096), 1)
            elif kind in b"0\0":
                names, longer = [*names, longer or name], ""
            file.seek(-(-length // 512) * 512, 1)
    return names if any(name.lower().endswith(WEIGHTS) for name in names) else []


def _longer_name(content: bytes) -> str:
    found = re.search(rb"\d+ path=([^\n]+)\n", content)
    return (found[1] if found else content.split(b"\0")[0]).decode("utf-8", "replace")


def _zip_members(path: Path) -> list[zipfile.ZipInfo]:
    """The directory of a zip file; empty where it is damaged or very long."""
    try:
        if _directory_size(path) > _LARGEST_DIRECTORY:
            return []
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception:  # damaged bytes make zipfile raise nearly anything
        return []


def _directory_size(path: Path) -> int:
    """Bytes of a zip file's directory, by the record at its end, before zipfile reads it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    size = struct.unpack_from("<I", tail, at + 12)[0]
    if size == 2**32 - 1 and (longer := tail.rfind(b"PK\x06\x06", 0, at)) >= 0:
        size = struct.unpack_from("<Q", tail, longer + 40)[0]
    return size
