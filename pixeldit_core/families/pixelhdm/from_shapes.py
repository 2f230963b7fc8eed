"""Params of a PixelHDM from the shapes of its tensors (spec: pixelhdm, sections 4 and 6.4)."""

from __future__ import annotations

import math
from typing import Any

from ..shapes import Shapes, count_blocks, matrix, vector


def params_from(shapes: Shapes) -> dict[str, Any]:
    """Sizes that follow from the shapes by canonical key; the others are only in a config (spec: pixelhdm, 6.4).

    Raises:
        KeyError: a tensor that determines a size is missing.
        ValueError: tensors that contradict each other.
    """
    bottleneck, patch_values = matrix(shapes, "patch_embed.proj_down.weight")
    pixel, channels = matrix(shapes, "pixel_embed.proj.weight")
    patch_size = math.isqrt(patch_values // channels)
    if patch_size**2 * channels != patch_values:
        raise ValueError(f"a patch has {patch_values} values, which make no square of {channels} channels")
    return {
        "hidden_dim": matrix(shapes, "patch_embed.proj_up.weight")[0],
        "pixel_dim": pixel,
        "patch_size": patch_size,
        "patch_layers": count_blocks(shapes, "patch_blocks."),
        "pixel_layers": count_blocks(shapes, "pixel_blocks."),
        "mlp_hidden_dim": matrix(shapes, "patch_blocks.0.mlp.up_proj.weight")[0],
        "pixel_mlp_hidden_dim": matrix(shapes, "pixel_blocks.0.mlp.up_proj.weight")[0],
        "bottleneck_dim": bottleneck,
        "in_channels": channels,
        "out_channels": vector(shapes, "output_proj.proj.bias"),
        "time_embed_dim": matrix(shapes, "time_embed.mlp.0.weight")[1],
        **_attention_params(shapes, "patch_blocks.0.attention."),
    }


def _attention_params(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """Heads and gate; with heads of one channel the two types of gates have the same shapes."""
    head = vector(shapes, f"{prefix}q_norm.weight")
    queries, keys, gates = (
        matrix(shapes, f"{prefix}{name}.weight")[0] for name in ("qkv_proj.q_proj", "qkv_proj.k_proj", "gate.proj")
    )
    if queries % head or keys % head:
        raise ValueError(f"{queries} channels of queries and {keys} of keys do not divide into heads of {head}")
    if gates not in (queries, queries // head):
        raise ValueError(f"{gates} gates fit neither {queries // head} heads nor their {queries} channels")
    return {
        "num_heads": queries // head,
        "num_kv_heads": keys // head,
        "gate_type": "elementwise" if gates == queries else "headwise",
        "gate_bias": f"{prefix}gate.proj.bias" in shapes,
    }
