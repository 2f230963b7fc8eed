"""What differs between systems, as data: the record of a family, and of a published configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..flow.rules import Rule
from ..labels import Names
from ..networks.shapes import Shapes
from ..recipes import Recipe
from ..sizes import Size

RULES = ("house", "published")


def nearest_level(x: Tensor) -> Tensor:
    """Pixels in [-1, 1] -> the nearest of 256 levels, halves upwards."""
    return ((x.float().clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor().byte()


@dataclass(frozen=True)
class Family:
    """What the rest of the code needs to know about a family.

    `velocity` is the bridge to the common language: from (network, params, x [B,C,H,W], t [B], condition arguments) to
    dx/dt, whatever time, sign and layout the network has of its own, and whether or not it predicts a velocity.
    """

    name: str
    title: str
    markers: tuple[str, ...]  #                          keys that every network of this family has
    params: type
    params_from: Callable[[Shapes], dict[str, Any]]  #   sizes that the shapes tell
    network: type[nn.Module]
    velocity: Callable[..., Tensor]
    condition: str  #                                    "class" | "text"
    null: Callable[[Any, int], Any] | None  #            (params, n) -> n rows of no condition; None = encode "" instead
    grid: Callable[..., Tensor]  #                       (steps, timeshift, last_step, params) -> times
    recipes: Mapping[str, Recipe]
    default_recipe: Callable[[Any, Size | None], Recipe]  # (params, size to make)
    prefers_ema: bool
    trained_sizes: Callable[[Any], tuple[Size, ...]]  #  of params
    summary: Callable[[Any], str]  #                     depth and width of params, for people
    to_uint8: Callable[[Tensor], Tensor] = nearest_level  # of pixels in [-1, 1]
    never: tuple[str, ...] = ()  #                       keys of relatives that have all the markers, too
    text_parts: tuple[str, ...] = ()  #                  of "embeds", "mask", "pooled": what the network takes of a text
    size_multiple: Callable[[Any], int] = lambda params: params.patch_size  # heights and widths are multiples of this
    memory: Callable[[Any], float] = lambda params: 1.0  # of a call per pixel, in terms of the official networks'
    text_encoder: str = ""  #                            which one, and how to load it in ComfyUI
    published: Rule | None = None  #                     the authors' own walk, where it is not the house's
    guesses: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}  # sizes that shapes hint at, and a config may deny
    config_params: Callable[[Mapping, Mapping], dict[str, Any]] = lambda config, told: dict(config)
    class_names: Callable[[Mapping], Names | None] = lambda config: None  # that a config inside of a file stands for
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names that files have, by a piece of the key
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)  # that work, best first

    def rule(self, name: str) -> Rule:
        """How to walk: "house", the correct mathematics, or "published", as the authors' program does.

        Raises:
            ValueError: an unknown name.
        """
        if name not in RULES:
            raise ValueError(f'rule "{name}" is not known; there are {", ".join(RULES)}.')
        return self.published if name == "published" and self.published else Rule(self.grid)

    def rounding(self, rule: str) -> Callable[[Tensor], Tensor]:
        """From pixels in [-1, 1] to 256 levels, by a rule of this name."""
        return self.rule(rule).to_uint8 or self.to_uint8


@dataclass(frozen=True)
class Preset:
    """A published configuration."""

    family: str
    params: Any
