"""The encoded captions of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ...model import Model
from ...text_states.states import TextStates, encode_command, open_states
from ..config import DataConfig


class HasCaptions(Protocol):
    """A data set that knows its captions."""

    def captions(self) -> Iterable[str]:
        """Those of all images, in their order; repeated ones may be left out."""
        ...


def open_text_states(config: DataConfig, model: Model, data: HasCaptions) -> TextStates:
    """The states of all captions of the data.

    Raises:
        ValueError: `text_states` is not set, has no states, or those of another family or width; captions are missing.
    """
    if config.text_states is None:
        command = encode_command(model.family, "FOLDER", config.path or "DATA")
        raise ValueError(
            f"data.text_states is not set, and {model.family.title} trains on encoded captions. Encode them once, and "
            f"set it to the folder: {command}"
        )
    return open_states(Path(config.text_states), model, data.captions(), config.path or "DATA")
