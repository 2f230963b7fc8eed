"""Unfinished downloads: marks that downloaders leave beside a file, and weights that hold nothing but zeros.

Many downloaders reserve a file's full size first, so that its size is right and its content is not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    """An ending that a downloader adds to a file's name."""

    ending: str
    program: str = ""
    own: bool = False  # it lies beside the file while that is written, and is deleted when it is whole


MARKS = (
    Mark(".aria2", "aria2 or Motrix", own=True),
    Mark(".aria2__temp", "aria2", own=True),
    Mark(".lftp-pget-status", "lftp", own=True),
    Mark(".st", "Axel", own=True),
    Mark(".xltd", "Thunder"), Mark(".xltd.cfg", "Thunder"), Mark(".td", "Thunder"), Mark(".td.cfg", "Thunder"),
    Mark(".bt.xltd", "Thunder"), Mark(".baiduyun.p.downloading", "Baidu"), Mark(".downloading"),
    Mark(".crdownload", "Chrome or Edge"), Mark(".part", "Firefox"), Mark(".download", "Safari"),
    Mark(".opdownload", "Opera"), Mark(".partial"), Mark(".incomplete", "the Hugging Face downloader"),
    Mark(".!ut", "uTorrent"), Mark(".!bt", "BitTorrent"), Mark(".!qB", "qBittorrent"), Mark(".bc!", "BitComet"),
    Mark(".!sync"), Mark(".fdmdownload", "Free Download Manager"), Mark(".fdmd"), Mark(".jc!", "FlashGet"),
    Mark(".ucdownload"), Mark(".dltemp"), Mark(".dtapart", "DownThemAll"), Mark(".filepart", "WinSCP"),
    Mark(".tmp"), Mark(".temp"), Mark(".unfinished"),
)  # fmt: skip
_HUB = Path(".cache") / "huggingface" / "download"  # of a folder that huggingface_hub downloads into

# Modules whose weights no initialization and no training leaves at zero, unlike biases, modulations, last layers and
# halves of a LoRA; and what a name with such a module must not have
_NEVER_ZERO = {"q_proj", "k_proj", "v_proj", "to_q", "to_k", "to_v", "w1", "w12", "fc1", "lora_down", "lora_a"}
_BY_DESIGN = ("adaln", "modulation", "lora_up", "lora_b", "zero")
_MOST_CHECKED = 3000  # tensors: a network has some hundred
_PROBES = 32  #    weights of a file that are looked at first
_WINDOW = 256  #   numbers of a weight that are looked at, at each point
_TAIL = 2**12  #   zeros at the end of a damaged file that are no chance
_POINTS = tuple(point / 8 for point in range(9))  # of a weight


def check_mark(path: Path) -> None:
    """Refuse a file that a downloader is writing, or that has the name of an unfinished one.

    Raises:
        ValueError: by its name, or by what lies beside it.
    """
    if mark := _named(path):
        raise ValueError(_explain_name(path, mark))
    for mark in find_marks(path):
        if mark.own:
            raise ValueError(_unfinished(path, mark))


def _named(path: Path) -> Mark | None:
    """The mark in a file's own name, or in that of the folder that Safari makes for a download."""
    lower = path.name.lower()
    if path.parent.name.lower() == f"{lower}.download":
        return Mark(".download", "Safari")
    return next((mark for mark in MARKS if lower.endswith(mark.ending.lower()) and mark.ending != ".st"), None)


def _explain_name(path: Path, mark: Mark) -> str:
    if mark.own:
        return (
            f"{path.name} is the note of a downloader{_of(mark)} about {path.stem}, which is not completely "
            "downloaded. Let the download finish, and choose the file itself."
        )
    return (
        f"{path.name} is an unfinished download or copy, by the ending {mark.ending}{_of(mark)}. Let it finish, or get "
        "the file again; if it is whole, take this ending off its name."
    )


def find_marks(path: Path) -> list[Mark]:
    """Marks beside a file."""
    return [mark for mark in MARKS if os.path.exists(f"{path}{mark.ending}")]


def explain_mark(path: Path) -> str | None:
    """That a damaged file is being downloaded; None = no mark beside it says so."""
    marks = find_marks(path)
    return _unfinished(path, marks[0]) if marks else None


def explain_unfinished(path: Path) -> str | None:
    """That a file, which is empty or not there, is being downloaded; None = nothing beside it says so."""
    if reason := explain_mark(path):
        return reason
    if os.path.exists(path.with_name(f".{path.name}.icloud")):
        return f"{path.name} is in iCloud alone, and not on this disk. Download it in the Finder, and try again."
    try:
        waiting = any(file.name.endswith(".incomplete") for file in (path.parent / _HUB).iterdir())
    except OSError:
        waiting = False
    if waiting:
        return (
            f"{path.name} is not completely downloaded: unfinished files are in {_HUB.as_posix()} beside it. Run the "
            "download again; it goes on where it stopped."
        )
    return None


def explain_end(path: Path) -> str | None:
    """That a damaged file ends with zeros, where its download reserved the space; None = it does not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        if size < _TAIL or file.read().strip(b"\0"):
            return None
    return (
        f"{path.name} is an unfinished download: its end holds nothing but zeros, where the space was reserved. "
        "Get the file again."
    )


def is_unfinished_name(name: str) -> bool:
    """Whether a name is that of an unfinished download, or of a mark beside one."""
    return name.lower().endswith(tuple(mark.ending.lower() for mark in MARKS))


def _unfinished(path: Path, mark: Mark) -> str:
    return (
        f"{path.name} is an unfinished download: {path.name}{mark.ending} is beside it{_of(mark)}. Let the download "
        f"finish, or get the file again; if the file is whole, delete {path.name}{mark.ending}."
    )


def _of(mark: Mark) -> str:
    return f" (of {mark.program})" if mark.program else ""


def check_zeros(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Warn of weights that hold nothing but zeros where no network has them; refuse them with a mark beside the file.

    Looks at small parts of some weights: a mapped file is not read as a whole.

    Raises:
        ValueError: such weights, and a downloader's mark.
    """
    marks, few = find_marks(path), dict(islice(tensors.items(), _MOST_CHECKED))
    if not any(_is_zero(few[key], (0.5,)) for key in (filter(_is_never_zero, few) if marks else _probes(few))):
        return
    weights = filter(_is_never_zero, few)
    zero = [key for key in weights if _is_zero(few[key], _POINTS)]
    if not zero:
        return
    if marks:
        raise ValueError(_unfinished(path, marks[0]))
    count = sum(_is_zero(value, _POINTS) for value in few.values())
    log.warning(
        "%s: %d of %d tensors hold nothing but zeros, %s among them. If nobody set them to zero, its download is "
        "unfinished, though its size is right: get the file again if its images are wrong.",
        path.name, count, len(few), zero[0][:80],
    )  # fmt: skip


def _is_never_zero(key: str) -> bool:
    *modules, last = key.lower().split(".")
    if last != "weight" or not modules or any(part in key.lower() for part in _BY_DESIGN):
        return False
    if "norm" in modules[-1] or "qkv" in modules[-1] or any("embed" in module for module in modules):
        return True
    return not _NEVER_ZERO.isdisjoint(modules[-2:])


def _probes(tensors: Mapping[str, Tensor]) -> Iterable[str]:
    """Some weights that are never zero, evenly spread over the file, the last one of it among them."""
    keys = list(tensors)
    length = max(1, -(-len(keys) // _PROBES))
    for start in range(0, len(keys), length):
        yield from islice(filter(_is_never_zero, keys[start : start + length]), 1)
    yield from islice(filter(_is_never_zero, reversed(keys)), 1)


def _is_zero(tensor: Tensor, points: Iterable[float]) -> bool:
    """Whether all bytes around these points of a tensor are zero."""
    if not tensor.numel() or not tensor.is_contiguous() or tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    flat, width = tensor.detach().view(-1), min(tensor.numel(), _WINDOW)
    starts = (int((tensor.numel() - width) * point) for point in points)
    return not any(flat[start : start + width].view(torch.uint8).any() for start in starts)
