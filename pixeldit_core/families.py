"""One record per model family: everything that differs between systems, as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .flow.grid import linear_grid
from .networks.pixeldit import PixelDiT, PixelDiTParams
from .recipes import RECIPES, Recipe

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """What the rest of the code needs to know about a family.

    `velocity` is the bridge to the common language: from (network, x [B,C,H,W], t [B], condition arguments) to dx/dt,
    whatever time, sign and layout the network has of its own.
    """

    name: str
    title: str
    markers: tuple[str, ...]  #                          keys that only a network of this family has all of
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
    rules: tuple[str, ...] = (
        "house",
        "published",
    )  #   the official families' two rules are the same mathematics
    to_uint8: Callable[[Tensor], Tensor] = lambda x: ((x.float() + 1) * 127.5 + 0.5).clamp(0, 255).floor().byte()

    def size_multiple(self, params: Any) -> int:
        """Heights and widths are multiples of this."""
        return params.patch_size


def _pixeldit_params(shapes: Shapes) -> dict[str, Any]:
    """Sizes of an official class-conditional network from its shapes (spec: official 2.5, layouts 2)."""
    hidden, patch_values = shapes["s_embedder.proj.weight"]
    pixel_hidden, channels = shapes["pixel_embedder.proj.weight"]
    patch_size = math.isqrt(patch_values // channels)
    attention_width = shapes["pixel_blocks.0.attn.proj.bias"][0]
    maps = shapes["pixel_blocks.0.adaLN_modulation.0.bias"][0] // (pixel_hidden * patch_size**2)
    return {
        "hidden_size": hidden,
        "num_groups": hidden // shapes["patch_blocks.0.attn.q_norm.weight"][0],
        "patch_depth": count_blocks(shapes, "patch_blocks."),
        "pixel_depth": count_blocks(shapes, "pixel_blocks."),
        "patch_size": patch_size,
        "pixel_hidden_size": pixel_hidden,
        "num_classes": shapes["y_embedder.embedding_table.weight"][0] - 1,
        "in_channels": channels,
        "mlp_hidden_size": shapes["patch_blocks.0.mlp.w1.weight"][0],
        "pixel_attn_hidden_size": attention_width,
        "pixel_num_groups": attention_width // shapes["pixel_blocks.0.attn.q_norm.weight"][0],
        "pit_adaln_post_modulation": maps == 4,
    }


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """Highest block index + 1; a gap shows up later, as missing tensors."""
    indices = {key[len(prefix) :].split(".", 1)[0] for key in shapes if key.startswith(prefix)}
    return max((int(index) for index in indices if index.isdigit()), default=-1) + 1


def _pixeldit_velocity(network: nn.Module, x: Tensor, t: Tensor, condition: tuple, **options: Any) -> Tensor:
    return network(x, t, *condition, **options)  # the official network speaks the common language


def _pixeldit_recipe(size: tuple[int, int] | None) -> Recipe:
    """The published settings for the nearer of the two trained sizes."""
    large = size is not None and math.sqrt(size[0] * size[1]) > 384
    return RECIPES["imagenet512" if large else "imagenet256-epoch320"]


PIXELDIT = Family(
    name="pixeldit",
    title="PixelDiT, class-conditional",
    markers=("pixel_embedder.proj.weight", "s_embedder.proj.weight", "y_embedder.embedding_table.weight"),
    params=PixelDiTParams,
    params_from=_pixeldit_params,
    network=PixelDiT,
    velocity=_pixeldit_velocity,
    condition="class",
    null=lambda params, n: torch.full((n,), params.num_classes, dtype=torch.int64),  # the table's last row
    grid=linear_grid,
    recipes=RECIPES,
    default_recipe=_pixeldit_recipe,
    prefers_ema=True,
    trained_sizes=((256, 256), (512, 512)),
)

FAMILIES: dict[str, Family] = {family.name: family for family in (PIXELDIT,)}


@dataclass(frozen=True)
class Preset:
    """A published configuration."""

    family: str
    params: Any


PRESETS: dict[str, Preset] = {
    "PixelDiT-B": Preset("pixeldit", PixelDiTParams(768, 12, 12, 2)),
    "PixelDiT-L": Preset("pixeldit", PixelDiTParams(1024, 16, 22, 4)),
    "PixelDiT-XL": Preset("pixeldit", PixelDiTParams(1152, 16, 26, 4)),
}


def find_family(name: str) -> Family:
    """The record of a family.

    Raises:
        ValueError: no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f'family "{name}" is not known; there are {", ".join(FAMILIES)}.')
    return FAMILIES[name]


def build_network(family: Family, params: Any, *, device: torch.device | str = "meta", **kit: Any) -> nn.Module:
    """A network in evaluation mode, frozen, its weights not filled (on "meta": not even allocated).

    `kit` is handed to the network: operations, attention, dtype.
    """
    with torch.device("meta"):  # skips torch.nn's own initialisation, which is slow and thrown away
        network = family.network(params, **kit)
    if torch.device(device).type != "meta":
        network = network.to_empty(device=device)
    return network.eval().requires_grad_(False)
