"""Checkpoints of a LoRA training of PixelDiT2, with pairs beside the weights they change (spec: pixeldit2, 7.3).

`X.base_layer.weight`, `X.lora_A` [r, in] and `X.lora_B` [out, r] stand in place of `X.weight`, which is
base + alpha / r * B A. Alpha is not in the file: the trainer's configurations have alpha = r.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .encoder_inside import PROJECTION
from .json_values import is_number, short_repr
from .weight_sets import choose_group, find_groups

log = logging.getLogger(__name__)

ALPHA = "lora_alpha"  # of a caller's params
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A", ".lora_B"


def merge_lora_run(
    tensors: Mapping[str, Tensor], weights: str, declared: str, name: str, params: dict[str, Any]
) -> dict[str, Tensor]:
    """Tensors of a file with the pairs of such a training merged; of any other file, as they are.

    Only the network that would be loaded is merged; others in the file keep their base.

    Args:
        tensors: on any device.
        weights, declared: as of `choose_group` and `find_groups`.
        name: of the file, for messages.
        params: of the caller; its "lora_alpha", if it is there, is used here, and taken out.

    Raises:
        ValueError: half a pair, or one that does not fit its weight; an alpha that is no number.
    """
    layers = {key.removesuffix(_DOWN) for key in tensors if key.endswith(_DOWN)}
    layers |= {key.removesuffix(_UP) for key in tensors if key.endswith(_UP)}
    layers = {layer for layer in layers if f"{layer}{_BASE}weight" in tensors}
    if not layers or not any(_is_of_pixeldit2(key) for key in tensors):
        return dict(tensors)
    alpha = params.pop(ALPHA, None)
    if alpha is not None and not is_number(alpha):
        raise ValueError(f"{name}: params has {ALPHA} = {short_repr(alpha)}, expected a number.")
    merged = {
        _plain(key, layers): value
        for key, value in tensors.items()
        if not (key.endswith((_DOWN, _UP)) and key[: -len(_DOWN)] in layers)
    }
    groups = find_groups(merged, declared)
    prefix = choose_group(groups, weights, name).prefix if groups else ""
    chosen = sorted(layer for layer in layers if layer.startswith(prefix))
    for layer in chosen:
        merged[f"{layer}.weight"] = _merge(tensors, layer, alpha, name)
    ranks = {tensors[layer + _DOWN].shape[0] for layer in chosen}
    if chosen:
        log.info(
            "%s: merged the LoRA in it (%d layers, rank %s) with alpha = %s; the file does not have it.",
            name, len(chosen), ", ".join(map(str, sorted(ranks))), "rank" if alpha is None else alpha,
        )  # fmt: skip
    return merged


def _is_of_pixeldit2(key: str) -> bool:
    return f".{key}".replace(_BASE, ".").endswith(f".{PROJECTION}")


def _plain(key: str, layers: set[str]) -> str:
    """The network's name of what PEFT-like wrappers keep as a base."""
    layer, base, rest = key.rpartition(_BASE)
    return f"{layer}.{rest}" if base and layer in layers else key


def _merge(tensors: Mapping[str, Tensor], layer: str, alpha: float | None, name: str) -> Tensor:
    base = tensors[f"{layer}{_BASE}weight"]
    down, up = tensors.get(layer + _DOWN), tensors.get(layer + _UP)
    if down is None or up is None:
        half = "lora_A" if down is None else "lora_B"
        raise ValueError(f"{name}: {layer} has no {half}. The file is incomplete: get it again.")
    fits = base.ndim == up.ndim == down.ndim == 2 and down.numel() > 0 and up.shape[1] == down.shape[0]
    if not fits or (up.shape[0], down.shape[1]) != tuple(base.shape):
        raise ValueError(
            f"{name}: the LoRA of {layer}, {list(up.shape)} x {list(down.shape)}, does not fit its weight "
            f"{list(base.shape)}. The file is damaged: get it again."
        )
    scale = 1.0 if alpha is None else alpha / len(down)
    return torch.addmm(base.float(), up.float(), down.float(), alpha=scale).to(base.dtype)
