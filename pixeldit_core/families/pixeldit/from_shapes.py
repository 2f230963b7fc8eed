"""Params of the official networks from the shapes of their tensors (spec: official, section 2.5; layouts, 2)."""

from __future__ import annotations

import math
from typing import Any

from ..shapes import Shapes, count_blocks, matrix


def pixeldit_params(shapes: Shapes) -> dict[str, Any]:
    """Of the class-conditional network.

    Raises:
        KeyError, IndexError: a tensor is missing, or of another rank.
        ValueError, ZeroDivisionError: sizes that do not divide.
    """
    classes = matrix(shapes, "y_embedder.embedding_table.weight")[0] - 1
    return _dual_path_params(shapes, "") | {"num_classes": classes}


def pixeldit_t2i_params(shapes: Shapes) -> dict[str, Any]:
    """Of the text-to-image network; raises as `pixeldit_params` does."""
    text = {
        "txt_embed_dim": matrix(shapes, "y_embedder.proj.weight")[1],
        "txt_max_length": shapes["y_pos_embedding"][1],
    }
    return _dual_path_params(shapes, "_x") | text


def _dual_path_params(shapes: Shapes, stream: str) -> dict[str, Any]:
    hidden, patch_values = matrix(shapes, "s_embedder.proj.weight")
    pixel_hidden, channels = matrix(shapes, "pixel_embedder.proj.weight")
    patch_size = math.isqrt(patch_values // channels)
    attention_width = shapes["pixel_blocks.0.attn.proj.bias"][0]
    maps = shapes["pixel_blocks.0.adaLN_modulation.0.bias"][0] // (pixel_hidden * patch_size**2)
    return {
        "hidden_size": hidden,
        "num_groups": hidden // shapes[f"patch_blocks.0.attn.q_norm{stream}.weight"][0],
        "patch_depth": count_blocks(shapes, "patch_blocks."),
        "pixel_depth": count_blocks(shapes, "pixel_blocks."),
        "patch_size": patch_size,
        "pixel_hidden_size": pixel_hidden,
        "in_channels": channels,
        "mlp_hidden_size": shapes[f"patch_blocks.0.mlp{stream}.w1.weight"][0],
        "pixel_attn_hidden_size": attention_width,
        "pixel_num_groups": attention_width // shapes["pixel_blocks.0.attn.q_norm.weight"][0],
        "pit_adaln_post_modulation": maps == 4,
    }
