"""A family's network, without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .record import Family


def build_network(
    family: Family, params: Any, *, device: torch.device | str = "meta", **factory_kwargs: Any
) -> nn.Module:
    """A network in evaluation mode, frozen, its weights not filled (on "meta": not even allocated).

    Args:
        params: the family's.
        factory_kwargs: operations, attention and dtype, handed to the network.
    """
    with torch.device("meta"):  # skips torch.nn's own initialization, which is slow and thrown away
        network = family.network(params, **factory_kwargs)
    if torch.device(device).type != "meta":
        network = network.to_empty(device=device)
    return network.eval().requires_grad_(False)
