"""The registry of model families: everything that differs between them is in their records, as data."""

from __future__ import annotations

from .build import build_network
from .pixeldit.record import OFFICIAL_VARIANTS, PIXELDIT, PIXELDIT_T2I
from .pixeldit2.record import PIXELDIT2, PIXELDIT2_VARIANTS
from .pixelhdm.record import PIXELHDM, PIXELHDM_VARIANTS
from .record import CONVENTIONS, Family, Shapes, Variant
from .xpred.record import XPRED_FAMILIES, XPRED_VARIANTS

__all__ = ["CONVENTIONS", "FAMILIES", "PIXELDIT", "VARIANTS", "Family", "Shapes", "build_network", "find_family"]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (PIXELDIT, PIXELDIT_T2I, PIXELDIT2, *XPRED_FAMILIES, PIXELHDM)
}
VARIANTS: dict[str, Variant] = {**OFFICIAL_VARIANTS, **PIXELDIT2_VARIANTS, **XPRED_VARIANTS, **PIXELHDM_VARIANTS}


def find_family(name: str) -> Family:
    """The record of a family.

    Raises:
        ValueError: no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f'family "{name}" is not known; there are {", ".join(FAMILIES)}.')
    return FAMILIES[name]
