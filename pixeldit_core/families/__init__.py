"""One record per model family: everything that differs between systems, as data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .official import OFFICIAL_PRESETS, PIXELDIT, PIXELDIT_T2I
from .pixelhdm import PIXELHDM, PIXELHDM_PRESETS
from .record import RULES, Family, Preset, Shapes
from .xpred import XPRED_FAMILIES, XPRED_PRESETS

__all__ = ["FAMILIES", "PIXELDIT", "PRESETS", "RULES", "Family", "Shapes", "build_network", "find_family"]

FAMILIES: dict[str, Family] = {family.name: family for family in (PIXELDIT, PIXELDIT_T2I, *XPRED_FAMILIES, PIXELHDM)}
PRESETS: dict[str, Preset] = {**OFFICIAL_PRESETS, **XPRED_PRESETS, **PIXELHDM_PRESETS}


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
