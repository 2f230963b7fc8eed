"""One record per model family: everything that differs between systems, as data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .pixeldit.record import OFFICIAL_VARIANTS, PIXELDIT, PIXELDIT_T2I
from .pixelhdm.record import PIXELHDM, PIXELHDM_VARIANTS
from .record import CONVENTIONS, Family, Shapes, Variant
from .xpred.record import XPRED_FAMILIES, XPRED_VARIANTS

__all__ = ["FAMILIES", "PIXELDIT", "VARIANTS", "CONVENTIONS", "Family", "Shapes", "build_network", "find_family"]

FAMILIES: dict[str, Family] = {family.name: family for family in (PIXELDIT, PIXELDIT_T2I, *XPRED_FAMILIES, PIXELHDM)}
VARIANTS: dict[str, Variant] = {**OFFICIAL_VARIANTS, **XPRED_VARIANTS, **PIXELHDM_VARIANTS}


def find_family(name: str) -> Family:
    """The record of a family.

    Raises:
        ValueError: no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f'family "{name}" is not known; there are {", ".join(FAMILIES)}.')
    return FAMILIES[name]


def build_network(
    family: Family, params: Any, *, device: torch.device | str = "meta", **factory_kwargs: Any
) -> nn.Module:
    """A network in evaluation mode, frozen, its weights not filled (on "meta": not even allocated).

    `factory_kwargs` is handed to the network: operations, attention, dtype.
    """
    with torch.device("meta"):  # skips torch.nn's own initialization, which is slow and thrown away
        network = family.network(params, **factory_kwargs)
    if torch.device(device).type != "meta":
        network = network.to_empty(device=device)
    return network.eval().requires_grad_(False)
