"""Encode the captions of a data set once, so that training needs no text encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..dtypes import dtype_name
from ..families import find_family
from ..text_states.shards import Index, StatesInfo, read_index, shard_path, unindexed, write_index, write_shard
from .data.captions import read_captions
from .data.shards import captions_of, read_shards
from .text_encoder import TextEncoder, TextState, load_text_encoder

SHARD_SIZE = 256  # captions of a file


def encode(
    sources: Sequence[Path],
    name: str,
    family: str,
    folder: Path,
    *,
    instruction: str = "",
    default_caption: str | None = None,
    max_tokens: int | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> str:
    """Encode the captions of folders of images and of text files with a caption a line; returns a summary.

    Raises:
        ImportError: transformers is missing.
        ValueError: no captions; the encoder cannot be used; the folder has states of another one.
    """
    captions = collect_captions(sources, default_caption)
    encoder = load_text_encoder(
        name, find_family(family), instruction=instruction, max_tokens=max_tokens, device=device, dtype=dtype
    )
    info = StatesInfo(family, name, dtype_name(dtype), encoder.width, encoder.max_tokens, instruction)
    encoded = encode_captions(encoder, captions, folder, info, batch_size=batch_size)
    return f"{folder}: states of {len({'', *captions})} captions, the empty one included; {encoded} encoded now.\n"


def collect_captions(sources: Sequence[Path], default: str | None) -> list[str]:
    """Captions of folders of images, shards, and text files with a caption a line, each once, in their order.

    Raises:
        ValueError: there are none.
    """
    captions: dict[str, None] = {}
    for source in sources:
        captions |= dict.fromkeys(_read(source, default))
    if not captions:
        raise ValueError(
            f"{', '.join(map(str, sources))} has no captions: expected images with a text file of the same name, such "
            "as cat.png and cat.txt, or a text file with a caption on each line."
        )
    return list(captions)


def _read(source: Path, default: str | None) -> Iterable[str]:
    if source.is_file() and source.suffix != ".tar":
        if source.suffix != ".txt":
            raise ValueError(
                f"{source} is not a folder of images, not a .tar shard and not a .txt file with a caption on each line."
            )
        lines = source.read_text(encoding="utf-8-sig").splitlines()
        return [line.strip() for line in lines if line.strip()]
    if source.suffix == ".tar" or any(source.glob("*.tar")):
        return captions_of(read_shards(str(source)), default)
    return [caption for _, caption in read_captions(source, default)]


def encode_captions(
    encoder: TextEncoder,
    captions: Iterable[str],
    folder: Path,
    info: StatesInfo,
    *,
    batch_size: int = 32,
    shard_size: int = SHARD_SIZE,
) -> int:
    """Add the states of "" and of captions to a folder, unless it has them; returns how many were encoded.

    An interrupt keeps what is encoded.

    Raises:
        ValueError: the folder has states of another encoder, or that were made in another way; states that are not
            finite, as fp16 gives with Gemma-2.
    """
    index = _open_folder(folder, info)
    missing = [caption for caption in dict.fromkeys(("", *captions)) if caption not in index]
    shard = _Shard(folder, index)
    try:
        with tqdm(total=len(missing), unit="caption", desc="encode", disable=not missing) as bar:
            for batch in (missing[first : first + batch_size] for first in range(0, len(missing), batch_size)):
                for caption, state in zip(batch, encoder(batch), strict=True):
                    shard.add(caption, state)
                    if len(shard.captions) == shard_size:
                        shard.write()
                bar.update(len(batch))
    except KeyboardInterrupt:
        shard.write()
        write_index(folder, index)
        raise KeyboardInterrupt("stopped; the same command encodes the rest.") from None
    shard.write()
    write_index(folder, index)
    return len(missing)


def _open_folder(folder: Path, info: StatesInfo) -> Index:
    """The index of a folder, with all of its complete shards."""
    index = read_index(folder)
    if index is not None and (different := index.info.differences(info)):
        raise ValueError(f"{folder} has other text states ({different}). Choose an empty folder.")
    index = index or Index(info, {})
    index.places |= unindexed(folder, index)
    write_index(folder, index)  # before the work, so that a folder that cannot be written to is an error now
    return index


class _Shard:
    """Collects states until they are written as one file."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.captions: list[str] = []
        self.states: list[TextState] = []

    def add(self, caption: str, state: TextState) -> None:
        """Raises ValueError for states that are not finite."""
        if not all(part is None or part.isfinite().all() for part in state):
            raise ValueError(
                f'the text encoder returned numbers that are not finite for "{caption}": use --dtype bf16.'
            )
        self.captions.append(caption)
        self.states.append(TextState(state.embeds.cpu(), None if state.pooled is None else state.pooled.cpu()))

    def write(self) -> None:
        """Write what there is, and note it in the index."""
        if not self.captions:
            return
        number = max((place.shard for place in self.index.places.values()), default=-1) + 1
        assert not shard_path(self.folder, number).exists(), "all shards are in the index"
        embeds = [state.embeds for state in self.states]
        pooled = [state.pooled for state in self.states if state.pooled is not None]
        self.index.places |= write_shard(self.folder, number, self.index.info, self.captions, embeds, pooled)
        self.captions, self.states = [], []
