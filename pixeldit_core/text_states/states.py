"""Encoded captions, as a network of text takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..families import Family, find_family
from ..model import Model
from .shards import Index, Place, StatesInfo, read_index, read_states, shard_path


class TextStates:
    """States of captions from a folder that `encode` wrote.

    Args:
        captions: those to use, each once.
        parts: of "embeds", "mask", "pooled": what the network takes.
    """

    def __init__(self, folder: Path, index: Index, captions: Sequence[str], parts: tuple[str, ...]) -> None:
        self.folder, self.index, self.captions, self.parts = folder, index, captions, parts

    @cached_property
    def null(self) -> tuple[Tensor, ...]:
        """The encoding of "", one row."""
        return self.batch([""])

    def batch(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """Parts of B captions, as the network takes them: embeds [B, T, C], mask bool [B, T], pooled [B, C]; float32.

        Without a mask all texts have one length; with one, T is the longest text's, and at least 1.

        Raises:
            ValueError: a caption without states.
        """
        self.check(captions)
        states = [read_states(self.folder, self._place(caption)) for caption in captions]
        lengths = [len(embeds) for embeds, _ in states]
        length = max(1, *lengths)
        found = {"embeds": torch.stack([_pad(embeds, length) for embeds, _ in states]).float()}
        if "mask" in self.parts:
            found["mask"] = torch.arange(length) < torch.tensor(lengths)[:, None]
        if "pooled" in self.parts:
            found["pooled"] = torch.stack([pooled for _, pooled in states if pooled is not None]).float()
        return tuple(found[name] for name in self.parts)

    def first(self, count: int) -> list[str]:
        """The first captions of the data, over again if there are fewer."""
        return list(islice(cycle(self.captions), count))

    def check(self, captions: Sequence[str]) -> None:
        """Raises ValueError, which says how to encode them, if captions have no states."""
        missing = [caption for caption in captions if caption not in self.index]
        if missing:
            info = self.index.info
            command = encode_command(
                find_family(info.family), self.folder, encoder=info.encoder, instruction=info.instruction
            )
            raise ValueError(
                f"{len(missing)} of {len(captions)} captions have no text states in {self.folder} (first: "
                f'"{missing[0]}"). Encode them; only what is missing is added: '
                f"{command}"
            )

    def _place(self, caption: str) -> Place:
        place = self.index.place(caption)
        assert place is not None, "captions are checked before"
        return place


def _pad(embeds: Tensor, length: int) -> Tensor:
    return F.pad(embeds, (0, 0, 0, length - len(embeds)))


def encode_command(
    family: Family, folder: Path | str, data: str = "DATA", encoder: str = "ENCODER", instruction: str | None = None
) -> str:
    """The command that encodes the captions of a data set. `instruction`: the text itself; None = not yet chosen."""
    option = ""
    if "mask" not in family.text_parts:
        option = " --instruction none" if instruction == "" else " --instruction FILE"
    return f"python -m pixeldit_core encode {data} --encoder {encoder} --family {family.name}{option} --out {folder}"


def open_states(folder: Path, model: Model, captions: Iterable[str], data: str = "DATA") -> TextStates:
    """The states of these captions and of "", from a folder.

    Args:
        data: where the captions are from, for the command in messages.

    Raises:
        ValueError: no states in the folder, or those of another family or width; captions are missing.
    """
    index = read_index(folder)
    if index is None:
        raise ValueError(
            f"{folder} has no index.json, so no text states. Encode the captions into it: "
            f"{encode_command(model.family, folder, data)}"
        )
    _check_info(folder, index.info, model)
    states = TextStates(folder, index, tuple(dict.fromkeys(captions)), model.family.text_parts)
    states.check(states.captions)
    states.check([""])
    _check_shards(states, model.family.max_tokens(model.params))
    return states


def _check_info(folder: Path, info: StatesInfo, model: Model) -> None:
    """Raises ValueError for states that are not for this model."""
    family, params = model.family, model.params
    if info.family != family.name:
        raise ValueError(f"{folder} has text states for {info.family}, and the model is a {family.name}: encode again.")
    if info.width != params.txt_embed_dim:
        raise ValueError(
            f"{folder} has text states of width {info.width} (of {info.encoder}), and the model takes "
            f"{params.txt_embed_dim}. Encode with the text encoder that has this width, or change the model."
        )
    if "mask" not in family.text_parts and info.max_tokens != params.txt_max_length:
        raise ValueError(
            f"{folder} has texts of {info.max_tokens} tokens, and the model reads {params.txt_max_length}, padding "
            f"included. Encode with --max-tokens {params.txt_max_length} into a new folder."
        )


def _check_shards(states: TextStates, most: int | None) -> None:
    """Raises ValueError for shards that are missing, or texts of more tokens than there are positions for."""
    places = [states._place(caption) for caption in ("", *states.captions)]
    longest = max(place.length for place in places)
    if most is not None and longest > most:
        raise ValueError(
            f"{states.folder} has a text of {longest} tokens, and the model has positions for {most}. Encode with "
            f"--max-tokens {most} into a new folder."
        )
    paths = [shard_path(states.folder, number) for number in sorted({place.shard for place in places})]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(paths)} shards of text states are missing (first: {missing[0]}). Restore them, "
            "or delete index.json and encode again; complete shards are kept."
        )
