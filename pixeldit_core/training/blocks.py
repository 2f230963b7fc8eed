"""The transformer blocks of a network, and what training does to each of them in place."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .config import EngineConfig


def transformer_blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The patch and pixel blocks of a network of any family, by name: they are what its own lists of modules hold."""
    lists = {name: child for name, child in network.named_children() if isinstance(child, nn.ModuleList)}
    return {f"{name}.{key}": block for name, blocks in lists.items() for key, block in blocks.named_children()}


def apply_engine_config(network: nn.Module, config: EngineConfig, backend: str = "inductor") -> None:
    """Activation checkpointing and compilation, in place: no module is wrapped, so names of parameters stay.

    With checkpointing a block keeps its input only and computes the rest again in the backward pass.
    """
    for block in transformer_blocks(network).values():
        if config.activation_checkpointing:
            block.forward = MethodType(_recomputed, block)  # a method: a copy of the block has one of its own
        if config.compile == "blocks":
            block.compile(backend=backend)
    if config.compile == "whole":
        network.compile(backend=backend)


def _recomputed(block: nn.Module, *arguments: Any, **options: Any) -> Any:
    """The forward of a block's class, whose intermediates are computed again in the backward pass."""
    forward = functools.partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, **options)
