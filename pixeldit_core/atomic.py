"""Atomic file writes, and why one failed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_NAME = 255  # bytes in UTF-8 on Linux and macOS, characters on Windows
_LONGEST_PATH = 248  # characters on Windows, of a folder, unless long paths are switched on
_IS_WINDOWS = os.name == "nt"
_LONGEST_SHOWN = 240  # characters of a path in a message
_SPACE = "Free space there, or choose another place."
_PLACE = "Choose another folder."
_NAME = "Choose another name."
_LENGTH = "Choose a shorter name, or a folder with a shorter path."

# Number of an operating system's error -> what is wrong, and the way out
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", _SPACE),
    errno.EFBIG: (
        "the file is larger than this disk (4 GB where it is formatted as FAT32), or a limit of this account, allows",
        "Choose another disk.",
    ),
    errno.EACCES: (
        "access is denied: the folder is protected, or another program has the file open",
        "Choose another folder or name, or close that program.",
    ),
    errno.EPERM: ("it is not permitted in this folder", _PLACE),
    errno.EROFS: ("the disk is read-only", _PLACE),
    errno.EBUSY: ("another program has the file open", "Close that program, or choose another name."),
    errno.ENAMETOOLONG: ("the path is too long", _LENGTH),
    errno.EISDIR: ("there is a folder of that name", _NAME),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", _PLACE),
    errno.ENOENT: ("its drive or folder is not there", _PLACE),
    errno.EINVAL: ("the name has characters that this system does not allow", _NAME),
    errno.ELOOP: ("a link in its path leads to itself", _PLACE),
    errno.EIO: ("the disk reports an error of its own, or was disconnected", "Check this disk, or choose another."),
    errno.EINTR: ("it was interrupted", "Try again."),
}
# Numbers of Windows that Python gives a vague number of C, or the wrong one
_WINDOWS = {
    2: errno.ENOENT, 3: errno.ENOENT, 15: errno.ENOENT, 19: errno.EROFS, 21: errno.ENOENT, 32: errno.EBUSY,
    33: errno.EBUSY, 39: errno.ENOSPC, 53: errno.ENOENT, 59: errno.EIO, 64: errno.EIO, 67: errno.ENOENT,
    87: errno.EINVAL, 112: errno.ENOSPC, 121: errno.EIO, 123: errno.EINVAL, 161: errno.EINVAL,
    206: errno.ENAMETOOLONG, 223: errno.EFBIG, 267: errno.EINVAL, 433: errno.EIO, 483: errno.EIO,
    1117: errno.EIO, 1167: errno.EIO, 1224: errno.EBUSY, 1295: getattr(errno, "EDQUOT", errno.ENOSPC),
}  # fmt: skip
_RUST = re.compile(r"\(os error (\d+)\)")  # in the text of safetensors' errors
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')  # on Windows; a colon would even write to a file of another name
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)  # devices of Windows


class WriteError(OSError):
    """A file could not be written. Its text is a whole sentence and the way out."""

    def __init__(self, error: BaseException, path: Path):
        super().__init__(_number_of(error), str(error), str(path))
        self.reason, self.way_out = explain_write_error(error, path)
        self.path = path

    def __str__(self) -> str:
        return f"{printable(self.path)} could not be written: {self.reason}. {self.way_out}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` when the block succeeds, removed when it raises.

    Its name is short, so that it fits wherever that of `path` does, and drawn, because programs on other machines that
    share the folder may have the same process id.

    Raises:
        WriteError: `path` cannot be written; before the block, where that shows already.
    """
    try:
        check_target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        check_target(path)
        part = _new_part(path)
        try:
            mode = part.stat().st_mode
            yield part
            part.chmod(mode)  # of a new file here; some writers make theirs readable by the owner only
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except WriteError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or _RUST.search(str(error)):
            raise WriteError(error, path) from error
        raise


def check_target(path: Path) -> None:
    """Refuse a path that no file can have, or that a folder has, without writing anything.

    Raises:
        OSError: such a path.
    """
    if not _is_possible(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)  # unlike Path.exists, it raises for a name that is too long in all versions of Python
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def explain_write_error(error: BaseException, path: Path) -> tuple[str, str]:
    """Why a file could not be written, and the way out: a clause and a sentence.

    Args:
        error: an OSError, or another one that has its number in its text, as those of safetensors.
    """
    if isinstance(error, WriteError):
        return error.reason, error.way_out
    if isinstance(error, UnicodeError) or not _is_encodable(path):
        return "its name has characters that this system cannot write", _NAME
    if name := next((part for part in reversed(path.parts) if _length(part) > LONGEST_NAME), None):
        whose = "its name" if name == path.name else f'the name of the folder "{name[:20]}..."'
        return (
            f"{whose} has {len(name)} characters ({_length(name)} bytes), where a name may have {LONGEST_NAME} bytes",
            "Choose a shorter name.",
        )
    if _IS_WINDOWS and (name := next(filter(_RESERVED.fullmatch, path.parts), None)):
        return f'"{name}" is a name that Windows keeps for a device', _NAME
    number = _number_of(error)
    if _IS_WINDOWS and number == errno.ENOENT and len(os.path.abspath(path)) >= _LONGEST_PATH:
        return f"its path has {len(os.path.abspath(path))} characters, more than Windows allows", _LENGTH
    if isinstance(error, FileExistsError) and (link := next(filter(_is_broken_link, path.parents), None)):
        return f"{link.name} in its path is a link to a folder that is not there", _PLACE
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return _REASONS.get(number, (text, "Check the disk and its free space, or choose another folder."))


def printable(path: Path | str) -> str:
    """A path for a message, whatever letters it has and however long it is."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:90]}...{text[-60:]}"


def _new_part(path: Path) -> Path:
    """A new, empty file beside `path`."""
    while True:
        part = path.with_name(f".{secrets.token_hex(4)}.part")
        with contextlib.suppress(FileExistsError):
            part.touch(exist_ok=False)
            return part


def _is_possible(path: Path) -> bool:
    if not _is_encodable(path):
        return False
    names = path.parts[1:] if path.anchor else path.parts
    return not _IS_WINDOWS or not any(_FORBIDDEN.search(name) or _RESERVED.fullmatch(name) for name in names)


def _is_encodable(path: Path) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeError:
        return False


def _is_broken_link(path: Path) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def _number_of(error: BaseException) -> int:
    if match := _RUST.search(str(error)):
        number = int(match[1])
        return _WINDOWS.get(number, 0) if _IS_WINDOWS else number
    if isinstance(error, FileExistsError):  # of mkdir: a file in the place of a folder
        return errno.ENOTDIR
    number, of_windows = getattr(error, "errno", None) or 0, getattr(error, "winerror", None) or 0
    # Python gives EINVAL to all numbers of Windows that it does not know
    return _WINDOWS.get(of_windows, 0 if of_windows and number == errno.EINVAL else number)


def _length(name: str) -> int:
    return len(name.encode("utf-16-le", "surrogatepass")) // 2 if _IS_WINDOWS else len(os.fsencode(name))
