"""From rows of a data set to what a loss takes: images in the model's range, conditions and random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model import Model
from ..text_states.states import TextStates
from .data.batch import Loaded
from .draws import Draws, draw
from .loss import Batch


class BatchMaker:
    """Makes the batches of one model.

    No copy to the device waits for what it computes: the next rows are prepared meanwhile.
    """

    def __init__(self, model: Model, texts: TextStates | None) -> None:
        self.texts = texts
        self.mean = torch.tensor(model.params.image_mean).view(-1, 1, 1)
        self.std = torch.tensor(model.params.image_std).view(-1, 1, 1)

    def __call__(self, rows: Loaded, device: torch.device) -> tuple[Batch, Draws]:
        """Rows on the CPU -> batch and draws on a device."""
        pixels = rows.pixels.to(device, non_blocking=True)
        mean, std = _to((self.mean, self.std), device)
        image = (pixels / 255 - mean) / std
        null = None if self.texts is None else _to(self.texts.null, device)
        batch = Batch(image, _to(self._condition(rows), device), null, *_to((rows.weights,), device))
        return batch, draw(rows.seeds, image.shape[1:], device)

    def _condition(self, rows: Loaded) -> tuple[Tensor, ...]:
        if self.texts is None:
            assert rows.labels is not None, "a class model has data with classes"
            return (rows.labels,)
        assert rows.captions is not None, "a text model has data with captions"
        return self.texts.batch(rows.captions)


def _to(parts: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    return tuple(part.to(device, non_blocking=True) for part in parts)
