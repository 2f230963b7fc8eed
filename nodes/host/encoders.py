"""Files of the frozen encoder that a PixelDiT2 looks through: the loader's list, and where "auto" looks."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...pixeldit_core.checkpoints.encoder_choice import EncoderChoice, places
from ...pixeldit_core.checkpoints.encoder_needed import title_of
from ...pixeldit_core.checkpoints.inspect import lacks_encoder
from ...pixeldit_core.checkpoints.locate import find_source
from ...pixeldit_core.spec import ModelSpec
from .folders import PACK_FOLDER, SHARED, find_in, fingerprint
from .listing import list_entries

AUTO, NONE = "auto", "none"
CLIP_VISION = "clip_vision"
_FOLDERS = (CLIP_VISION, PACK_FOLDER, SHARED)
_OTHERS = re.compile(r"clip|dino[-_]?v2|radio|jepa|birefnet", re.IGNORECASE)  # names of other encoders there
_NAMES = re.compile(r"dino[-_]?v?3", re.IGNORECASE)
_LARGEST = 2 * 2**30  # bytes: of a file that is looked into without such a name; ViT-L in float32 has 1.2e9


def list_encoders() -> list[str]:
    """Names for the loader's list: files that may be an encoder by their name, each once."""
    vision = [entry for entry in list_entries(CLIP_VISION) if _NAMES.search(entry) or not _OTHERS.search(entry)]
    others = [entry for folder in (PACK_FOLDER, SHARED) for entry in list_entries(folder) if _NAMES.search(entry)]
    return list(dict.fromkeys((AUTO, NONE, *vision, *others)))


def find_encoder(name: str) -> str:
    """What a name of the list stands for: "auto" and "none" as they are, else the full path of the file.

    Raises:
        ValueError: no such file in any of the folders.
    """
    if name in (AUTO, NONE):
        return name
    if path := find_in(_FOLDERS, name):
        return path
    raise ValueError(
        f'encoder "{name}" is not in models/{CLIP_VISION}, models/{SHARED} nor models/{PACK_FOLDER}. Put it there, '
        f'press R in the browser to refresh the list, and choose it again; or choose "{AUTO}".'
    )


def candidates() -> Iterator[Path]:
    """Files among which "auto" looks for an encoder, by their headers."""
    for folder in _FOLDERS:
        for entry in list_entries(folder):
            path = None if entry.endswith("/") else find_in((folder,), entry)
            if path and (_NAMES.search(entry) or _size(path) < _LARGEST):
                yield Path(path)


def fingerprint_encoder(checkpoint: str, encoder: str) -> tuple:
    """Changes when the file of the encoder does, or with "auto" one of those that it is chosen from.

    Args:
        checkpoint: its path.
        encoder: from the list.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    chosen = find_encoder(encoder)
    if chosen not in (AUTO, NONE):
        return fingerprint(chosen)
    if chosen == NONE or not _needs_encoder(checkpoint, fingerprint(checkpoint)):
        return ()
    choice = EncoderChoice(None, find_source(checkpoint), candidates())
    return tuple((str(path), _stamp(path)) for place in places(choice) for path in place)


def _stamp(path: Path) -> tuple:
    try:
        return fingerprint(str(path))
    except ValueError:  # another file of the folder, which cannot be read
        return ()


@functools.lru_cache(maxsize=64)
def _needs_encoder(checkpoint: str, stamp: tuple) -> bool:
    """Whether a checkpoint is of a network with an encoder that is not inside; `stamp` changes with the file."""
    return lacks_encoder(checkpoint)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a broken link
        return 0


def describe_encoder(spec: ModelSpec, file: Path | None) -> str:
    """Which encoder a network was loaded with; "" for a network that has none.

    Args:
        file: of the encoder; None = it was inside of the checkpoint, or is not there.
    """
    depth = getattr(spec.params, "encoder_depth", None)
    if depth is None:
        return ""
    if not depth:
        return "note: loaded without its encoder: images are generated without grounding, in lower quality"
    place = f"from {file.parent.name}/{file.name}" if file else "inside of the checkpoint"
    return f"encoder {title_of(spec.params.encoder_dim)}, {place}"
