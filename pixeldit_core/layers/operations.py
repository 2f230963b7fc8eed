"""What layers are built from: the namespace of layer classes, and what all RMSNorms share.

Every layer takes `operations`, and `factory_kwargs` (device and dtype) for each of its parts. None initializes its
weights: a checkpoint fills them, or `training.initialize` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

RMS_NORM_EPS = 1e-6  # of every RMSNorm in these networks

Device = torch.device | str | None


class Operations(Protocol):
    """The layer classes that networks are built from: `torch.nn`, or ComfyUI's, which cast and offload weights."""

    @property
    def Linear(self) -> Callable[..., nn.Module]: ...
    @property
    def Embedding(self) -> Callable[..., nn.Module]: ...
    @property
    def RMSNorm(self) -> Callable[..., nn.Module]: ...
    @property
    def LayerNorm(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv2d(self) -> Callable[..., nn.Module]: ...
    @property
    def ConvTranspose2d(self) -> Callable[..., nn.Module]: ...
