"""Whether a path leads to a file that can be read, and why not: links without target, circles, locks, devices."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from .downloads import explain_unfinished

_LONGEST_CHAIN = 40  # of links to links
_IN_USE, _PAGING_FILE, _CIRCLE = 32, 1455, 1921  # error numbers of Windows

_NO_MEMORY = re.compile(r"os error 1455|cannot allocate memory|not enough memory|paging file", re.IGNORECASE)


def is_no_memory(error: Exception) -> bool:
    """Whether a file could not be opened for want of memory, as libraries say it."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def check_file(path: Path) -> None:
    """Refuse whatever is no file with content to read.

    Raises:
        ValueError: not there, a link without target, a folder, a device, or not allowed.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ValueError(explain_os_error(path, error)) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        raise ValueError(f"{path.name} is {what}, not a file. Choose a file of weights.")


def explain_os_error(path: Path, error: Exception) -> str:
    """Why a path cannot be read, as whole sentences with its name."""
    number, windows = getattr(error, "errno", None), getattr(error, "winerror", None)
    if number == errno.ENOMEM or windows == _PAGING_FILE or is_no_memory(error):
        return (
            f"{path.name} could not be opened: there is not enough memory for it. Close other programs, or let Windows "
            "make its paging file larger, and try again."
        )
    if windows == _IN_USE:
        return f"{path.name} is in use by another program, which keeps it locked. Close that program, and try again."
    if isinstance(error, PermissionError):
        return (
            f"{path.name} may not be read by this user (permission denied: {path.parent}). Allow it in the properties "
            "of the file and of its folder, or copy it to another folder."
        )
    if number == errno.ELOOP or windows == _CIRCLE:
        return (
            f"{path.name} is a link that leads back to itself, through {_target(path) or 'its folder'}. Put the file "
            "itself in its place."
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return explain_missing(path)
    return f"{path.name} could not be read ({error}). Check the disk or the network, and try again."


def explain_missing(path: Path) -> str:
    """Why there is nothing at a path, as whole sentences with its name."""
    for link in (path, *path.parents):
        if (target := _target(link)) is not None and not os.path.exists(link):
            return _explain_link(path, *_last_link(link, target))
    if unfinished := explain_unfinished(path):
        return unfinished
    return f"{path.name}: there is no such file ({path.parent})."


def is_broken_link(path: Path) -> bool:
    """Whether a path is a link whose target is not there."""
    return _target(path) is not None and not os.path.exists(path)


def _last_link(link: Path, target: str) -> tuple[Path, str]:
    """The one of a chain of links whose target is not there."""
    for _ in range(_LONGEST_CHAIN):
        following = link.parent / target
        further = _target(following)
        if further is None:
            break
        link, target = following, further
    return link, target


def _explain_link(path: Path, link: Path, target: str) -> str:
    where = "is a link that"
    if link != path:
        where = f"is {'a link to' if link.parent == path.parent else 'in the folder of'} the link {link.name}, which"
    incomplete = (link.parent / target).with_name(Path(target).name + ".incomplete")
    gone = "it was moved or deleted, or its disk is not connected"
    if os.path.exists(incomplete):
        gone = "its download has not finished"
    return (
        f"{path.name} {where} points to {target[-200:]}, which is not there: {gone}. Put the file itself in its "
        "place, or download it again."
    )


def _target(path: Path) -> str | None:
    """Where a link (or a junction of Windows) points to; None = it is none."""
    try:
        return os.readlink(path).removeprefix("\\\\?\\")
    except (OSError, ValueError):
        return None
