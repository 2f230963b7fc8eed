"""What differs between systems, as data: the record of a family, and of a published configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.shapes import Shapes
from ..recipes import Recipe


@dataclass(frozen=True)
class Family:
    """What the rest of the code needs to know about a family.

    `velocity` is the bridge to the common language: from (network, x [B,C,H,W], t [B], condition arguments) to dx/dt,
    whatever time, sign and layout the network has of its own.
    """

    name: str
    title: str
    markers: tuple[str, ...]  #                          keys that every network of this family has
    params: type
    params_from: Callable[[Shapes], dict[str, Any]]  #   sizes that the shapes tell
    network: type[nn.Module]
    velocity: Callable[[nn.Module, Tensor, Tensor, tuple], Tensor]
    condition: str  #                                    "class" | "text"
    null: Callable[[Any, int], Any] | None  #            (params, n) -> n rows of no condition; None = encode "" instead
    grid: Callable[..., Tensor]  #                       (steps, timeshift, last_step) -> times
    recipes: Mapping[str, Recipe]
    default_recipe: Callable[[tuple[int, int] | None], Recipe]
    prefers_ema: bool
    trained_sizes: tuple[tuple[int, int], ...]
    to_uint8: Callable[[Tensor], Tensor]
    never: tuple[str, ...] = ()  #                       keys of relatives that have all the markers, too
    text_parts: tuple[str, ...] = ()  #                  of "embeds", "mask", "pooled": what the network takes of a text
    rules: tuple[str, ...] = ("house", "published")  #   the official families' two are the same mathematics
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)  # that work, best first

    def size_multiple(self, params: Any) -> int:
        """Heights and widths are multiples of this."""
        return params.patch_size


@dataclass(frozen=True)
class Preset:
    """A published configuration."""

    family: str
    params: Any
