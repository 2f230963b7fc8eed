"""Dropout inside of the middle patch blocks, while a network trains (spec: pixeldit2, 10)."""

from __future__ import annotations

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..model import Model
from .repa import patch_blocks


def add_block_dropout(model: Model, probability: float) -> None:
    """Drop values of what attention returns, and of the hidden layer of the SwiGLU: half of the patch blocks, those in
    the middle, in training mode only.

    Hooks of the layers do it, so that networks need not know; set up before the network is compiled.

    Raises:
        ValueError: a network whose patch blocks have no such layers.
    """

    def drop_result(layer: nn.Module, _: Any, result: Tensor) -> Tensor:
        return F.dropout(result, probability, layer.training)

    def drop_input(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (F.dropout(arguments[0], probability, layer.training), *arguments[1:])

    blocks = patch_blocks(model)
    quarter = len(blocks) // 4
    for block in itertools.islice(blocks, quarter, 3 * quarter):
        layers = dict(block.named_modules())
        if "attn.proj" not in layers or "mlp.w2" not in layers:
            raise ValueError(
                f"model.block_dropout is {probability}, and the patch blocks of {model.family.title} have other "
                "layers: leave it out."
            )
        layers["attn.proj"].register_forward_hook(drop_result)
        layers["mlp.w2"].register_forward_pre_hook(drop_input)
