"""Atomic file writes, and why one failed."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_NAME = 255  # bytes in UTF-8 on Linux, characters on Windows and macOS
_SPACE = "Free space there, or choose another place."
_PLACE = "Choose another folder."
_NAME = "Choose another name."

# Number of an operating system's error -> what is wrong, and the way out
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", _SPACE),
    errno.EFBIG: ("the file is larger than this disk, or a limit of this account, allows", "Choose another disk."),
    errno.EACCES: (
        "access is denied: the folder is protected, or another program has the file open",
        "Choose another folder or name, or close that program.",
    ),
    errno.EPERM: ("it is not permitted in this folder", _PLACE),
    errno.EROFS: ("the disk is read-only", _PLACE),
    errno.EBUSY: ("another program has the file open", "Close that program, or choose another name."),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter name, or a folder with a shorter path."),
    errno.EISDIR: ("there is a folder of that name", _NAME),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", _PLACE),
    errno.ENOENT: ("its drive or folder is not there", _PLACE),
    errno.EINVAL: ("the name has characters that this system does not allow", _NAME),
    errno.ELOOP: ("a link in its path leads to itself", _PLACE),
    errno.EIO: ("the disk reports an error of its own", "Choose another disk, and check this one."),
}
# Numbers of Windows that Python gives a vague number of C
_WINDOWS = {3: errno.ENOENT, 32: errno.EBUSY, 33: errno.EBUSY, 112: errno.ENOSPC, 123: errno.EINVAL,
            206: errno.ENAMETOOLONG, 223: errno.EFBIG}  # fmt: skip
_RUST = re.compile(r"\(os error (\d+)\)")  # in the text of safetensors' errors


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` when the block succeeds, removed when it raises.

    Its name is drawn, because programs on other machines that share the folder may have the same process id. It is
    never longer than a name may be.

    Raises:
        OSError: `path` cannot be written; before the block, where that shows already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # raises for a name that is too long, before anything is written
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    end = f".{secrets.token_hex(8)}.part"
    part = path.with_name(f".{_shortened(path.name, LONGEST_NAME - 1 - len(end))}{end}")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # of a new file here; some writers make theirs readable by the owner only
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def explain_write_error(error: BaseException, path: Path) -> tuple[str, str]:
    """Why a file could not be written, and the way out: a clause and a sentence.

    Args:
        error: an OSError, or another one that has its number in its text, as those of safetensors.
    """
    if isinstance(error, UnicodeError) or "\0" in str(path):
        return "its name has characters that this system cannot write", _NAME
    if path.name and _length(path.name) > LONGEST_NAME:
        return (
            f"its name has {len(path.name)} characters ({_length(path.name)} bytes), where a name may have "
            f"{LONGEST_NAME} bytes",
            "Choose a shorter name.",
        )
    if isinstance(error, FileExistsError) and (link := next(filter(_is_broken_link, path.parents), None)):
        return f"{link.name} in its path is a link to a folder that is not there", _PLACE
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return _REASONS.get(_number_of(error), (text, "Free space on the disk, or choose another folder."))


def _is_broken_link(path: Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def _number_of(error: BaseException) -> int:
    if match := _RUST.search(str(error)):
        number = int(match[1])
        return _WINDOWS.get(number, number) if os.name == "nt" else number
    if isinstance(error, FileExistsError):  # of mkdir: a file in the place of a folder
        return errno.ENOTDIR
    number = getattr(error, "errno", None) or 0
    return _WINDOWS.get(getattr(error, "winerror", None) or 0, number)


def _length(name: str) -> int:
    return len(name) if os.name == "nt" else len(os.fsencode(name))


def _shortened(name: str, longest: int) -> str:
    while _length(name) > longest:
        name = name[:-1]
    return name
