"""Samples of a run while it trains."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from ..conditions import class_condition
from ..images import contact_sheet, to_uint8
from ..model import Condition, Model
from ..sampling import sample
from ..text_states.states import TextStates
from .config import SampleConfig


class WithWeights(nn.Module):
    """A network that computes with other weights than its own, which stay as they are.

    So nothing has to be put back after sampling with an average, not even after an interrupt.
    """

    def __init__(self, network: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._network = (network,)  # not a sub-module: its parameters are not this module's
        self._names = list(tensors)
        self.weights = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors.values())

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        """As of the network."""
        tensors = dict(zip(self._names, self.weights, strict=True))
        return functional_call(self._network[0], tensors, arguments, options)


def sheet_condition(model: Model, config: SampleConfig, texts: TextStates | None) -> tuple[Condition, Condition | None]:
    """What the images of a sheet are conditioned on, and the null condition of a text model."""
    if texts is not None:
        captions = list(config.captions) or texts.first(config.count)
        return texts.batch(captions), texts.null
    count = model.params.num_classes
    spread = [index * count // config.count for index in range(config.count)] if count > config.count else range(count)
    classes = list(config.classes) or list(spread)
    return class_condition(model, [classes[index % len(classes)] for index in range(config.count)]), None


@torch.no_grad()
def sample_sheet(model: Model, config: SampleConfig, texts: TextStates | None, size: tuple[int, int]) -> Image.Image:
    """One image of `config.count` samples; the noise of each stays the same during the run."""
    condition, null = sheet_condition(model, config, texts)
    seeds = [config.seed + index for index in range(_rows(condition))]
    x = sample(model, condition, null, seeds=seeds, size=size, steps=config.steps, cfg=config.cfg)
    scale = max(1, 96 // size[0])
    return contact_sheet(to_uint8(model, x), scale=scale)


def _rows(condition: Condition) -> int:
    first = condition[0] if isinstance(condition, tuple) else condition
    assert first is not None, "the first part of a condition is always there"
    return len(first)
