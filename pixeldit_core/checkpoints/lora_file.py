"""A LoRA file as it is read, whatever kind of adapter it has, and what a user should know of its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from .folder import in_folder
from .lora_folder import explain_learned, explain_text_half, find_companions, find_lora_file, is_embedding_name
from .lora_pixeldit2 import alphas, is_alpha_unknown
from .lora_refused import check_origin
from .lora_text import is_bundled_embedding, is_text_encoder
from .peft_config import has_alpha, is_of_peft, read_peft_config
from .read import read_checkpoint
from .wrappers import plain_names


@dataclass(frozen=True)
class LoraFile:
    """The tensors of a LoRA file."""

    path: Path
    source: str  #                  name for messages
    tensors: Mapping[str, Tensor]  #  by names without the pieces of wrappers
    metadata: Mapping[str, str]

    @cached_property
    def config(self) -> dict[str, Any]:
        """PEFT's settings; raises ValueError as `read_peft_config`."""
        return read_peft_config(self.path, self.tensors, self.metadata)

    def notes(self, unknown: Iterable[str], peft: bool) -> tuple[str, ...]:
        """What of the training is not applied, and what had to be assumed: a sentence for each, without a full stop.

        Args:
            unknown: modules, and tensors of none, that fit no weight of the network.
            peft: whether a pair of PEFT's that is applied has no alpha of its own.
        """
        unknown, notes = list(unknown), find_companions(self.path)
        text = [name for name in unknown if is_text_encoder(name)]
        learned = [name for name in unknown if is_bundled_embedding(name)]
        if text and not any("text encoder" in note for note in notes):
            notes.append(explain_text_half(f"{text[0]} in this file"))
        if learned and not any("embeddings" in note for note in notes):
            notes.append(explain_learned(f"{learned[0]} in this file"))
        if peft and is_of_peft(self.path, self.tensors) and not has_alpha(self.config):
            notes.append("without adapter_config.json beside the file its alpha is unknown: it is taken as the rank")
        if is_alpha_unknown(self.tensors):
            notes.append(
                "without the header that PixelDiT2's trainer writes its alpha is unknown: it is taken as the rank"
            )
        return tuple(notes)


def read_lora_file(path: str | Path) -> LoraFile:
    """The tensors of a LoRA.

    Args:
        path: a file, or a folder as `find_lora_file` takes it.

    Raises:
        ValueError: what `find_lora_file` and `read_checkpoint` raise; an adapter for editing, a network that PEFT has
            wrapped, an adapter that cannot be added; two tensors of one name.
    """
    file, source = find_lora_file(Path(path))
    try:
        tensors, metadata = read_checkpoint(file)
    except ValueError as error:
        message = in_folder(str(error), Path(path).name if file != Path(path) else "", file.name)
        if not is_embedding_name(file.stem):
            raise ValueError(message) from error
        raise ValueError(
            f"{message} By its name it has learned embeddings: new words for a text encoder, which cannot be added to "
            "PixelDiT itself."
        ) from error
    check_origin(tensors, metadata, source)
    stored = plain_names(tensors, source)
    named = {name: tensors[key] for name, key in stored.items()}
    return LoraFile(file, source, {**alphas(named, metadata, source), **named}, metadata)
