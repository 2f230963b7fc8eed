"""Which encoder a checkpoint is loaded with: the one inside, one that was given, one beside the file, or none."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..text import shorten_list
from .encoder_file import NoEncoder, UnreadableFile, read_encoder, read_encoder_header
from .encoder_inside import has_encoder, needed_width, with_encoder, without_encoder
from .encoder_needed import explain_missing, title_of
from .folder import candidates, list_names
from .locate import Source
from .weight_sets import Group, choose_group

log = logging.getLogger(__name__)

BESIDE = "encoder"  # a folder beside a checkpoint, or in a diffusers folder
NONE, INSIDE = "none", "inside"
_MAY_BE = re.compile(r"dino|vit|^model\.", re.IGNORECASE)  # names of encoders
_MOST_FILES = 200  # of a folder, that are looked at


@dataclass(frozen=True)
class EncoderChoice:
    """Where the encoder of a checkpoint comes from.

    `wanted` is None (inside of the file, else beside it, else among `more`; it is an error if it is nowhere), "inside"
    (of the file, or none), "none", or the path of a file or folder.
    """

    wanted: str | Path | None = INSIDE
    source: Source | None = None  #      of the checkpoint
    more: Iterable[str | Path] = ()  #   other files to look at, and only then, where none is beside the checkpoint

    @property
    def changes(self) -> bool:
        """Whether it is certain that the encoder is another than that in the file."""
        return self.wanted == NONE or self.is_path

    @property
    def is_path(self) -> bool:
        return self.wanted is not None and self.wanted not in (NONE, INSIDE)


AS_STORED = EncoderChoice()  # that of the file, or none


@dataclass(frozen=True)
class Placed:
    """Tensors of a file with the chosen encoder in its place."""

    tensors: dict[str, Tensor]
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what the encoder's own file declares
    source: str = ""  #              name of that file, for messages
    file: Path | None = None  #      the file or folder itself


def place_encoder(
    tensors: dict[str, Tensor], groups: Iterable[Group], weights: str, choice: EncoderChoice, name: str
) -> Placed:
    """Tensors of a file, with the encoder for the network that is loaded.

    Args:
        tensors: where encoders inside have the network's names.
        weights: as of `choose_group`.
        name: of the file, for messages.

    Raises:
        ValueError: an encoder is needed and not found, or several are; the given one is no encoder, or one of another
            width; it was given for a network that has none.
    """
    shapes, groups = {key: tuple(value.shape) for key, value in tensors.items()}, list(groups)
    if not groups or (not choice.is_path and all(needed_width(shapes, group) is None for group in groups)):
        return Placed(tensors)
    group = choose_group(groups, weights, name)
    width = needed_width(shapes, group)
    if width is None:
        if choice.is_path:
            raise ValueError(
                f"{name} is {group.family.title}, which has no encoder, and {choice.wanted} was given as one. Leave "
                "the encoder out, or choose a checkpoint of PixelDiT2."
            )
        return Placed(tensors)
    inside = has_encoder(tensors, group)
    if choice.wanted == NONE:
        return Placed(without_encoder(tensors))
    if choice.wanted == INSIDE or (choice.wanted is None and inside):
        return Placed(tensors)
    file = find_encoder(choice, width, name) if choice.wanted is None else Path(choice.wanted)
    encoder = read_encoder(file)
    encoder.header.check_width(width, name)
    replaced = ", in place of the one inside of the file" if inside else ""
    log.info("%s: its encoder is %s%s.", name, encoder.header.source, replaced)
    heads = encoder.header.heads
    params = {} if heads is None else {"encoder_num_heads": heads}
    return Placed(with_encoder(tensors, group, encoder), params, encoder.header.source, file)


def find_encoder(choice: EncoderChoice, width: int, name: str) -> Path:
    """The file or folder of the only encoder of a width beside a checkpoint, else the only one among other files.

    Raises:
        ValueError: there is none, or several.
    """
    misfit = unread = ""
    for place in places(choice):
        found, reason, damage = fitting(place, width)
        misfit, unread = misfit or reason, unread or damage
        if len(found) > 1:
            listed = shorten_list((f"{path.parent.name}/{path.name}" for path in found), 5)
            raise ValueError(
                f"{name}: {len(found)} encoders fit it, {listed}. Choose one of them as the encoder, or keep one alone."
            )
        if found:
            return found[0]
    reason = misfit or unread
    raise ValueError(explain_missing(name, width, f"{reason} " if reason else ""))


def fitting(files: Iterable[Path], width: int) -> tuple[list[Path], str, str]:
    """Files or folders with an encoder of this width alone; why the first other encoder among them does not fit; and
    why the first that may be one, by its name, cannot be read."""
    found, refused, unread = [], "", ""
    for path in files:
        try:
            header = read_encoder_header(path)
        except NoEncoder:
            continue
        except UnreadableFile as error:
            if path.parent.name == BESIDE or _MAY_BE.search(path.name):
                unread = unread or str(error)
            continue
        except ValueError as error:
            refused = refused or str(error)
            continue
        if header.is_inside:
            continue
        if header.width == width:
            found.append(path)
        else:
            refused = refused or f"{header.source} is {title_of(header.width)}, which does not fit."
    return found, refused, unread


def places(choice: EncoderChoice) -> Iterator[list[Path]]:
    """Files and folders to look at, those of each place together."""
    if source := choice.source:
        own = {file.resolve() for file in source.files}
        around = dict.fromkeys((*((source.pipeline,) if source.pipeline else ()), source.folder))
        for folder in (place / BESIDE for place in around):
            if folder.is_dir():
                inside = _files(folder)
                yield [folder] if len(inside) == 1 else inside
        yield [file for file in _files(source.folder) if file.resolve() not in own]
    yield list({file.resolve(): file for file in map(Path, choice.more)}.values())


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in candidates(list_names(folder)) if (folder / name).is_file()][:_MOST_FILES]
