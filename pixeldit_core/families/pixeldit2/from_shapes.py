"""Params of a PixelDiT2 from the shapes of its tensors, and guesses of the others (spec: pixeldit2, 2.3)."""

from __future__ import annotations

import math
from typing import Any

from ...encoders.dinov3 import guess_heads
from ...layers.mlp import swiglu_size
from ..shapes import Shapes, count_blocks, matrix, vector

_ENCODER, _PROJECTION = "dino_conditioner.encoder.", "dino_conditioner.dino_proj."
_DEEP = 12  # networks of more blocks get their context tokens later
_LARGE_ENCODER = 768


def params_from(shapes: Shapes) -> dict[str, Any]:
    """Sizes that follow exactly from the shapes. Without the encoder's tensors, encoder_depth is 0.

    Raises:
        KeyError: a tensor that determines a size is missing.
        ValueError: tensors that contradict each other, or have another rank.
    """
    hidden, patch_values = matrix(shapes, "s_embedder.proj.weight")
    patch_size = math.isqrt(patch_values // 3)
    if 3 * patch_size**2 != patch_values:
        raise ValueError(f"a patch has {patch_values} values, which make no square of 3 channels")
    return {
        "hidden_size": hidden,
        "num_heads": _heads(shapes, "patch_blocks.0.", hidden),
        "depth": count_blocks(shapes, "patch_blocks."),
        "patch_size": patch_size,
        "in_channels": 3,
        "num_classes": matrix(shapes, "y_embedder.embedding_table.weight")[0] - 1,
        "in_context_len": _context_len(shapes),
        "mlp_hidden_size": matrix(shapes, "patch_blocks.0.mlp.w1.weight")[0],
        "encoder_dim": matrix(shapes, f"{_PROJECTION}input_proj.weight")[1],
        "encoder_depth": count_blocks(shapes, f"{_ENCODER}blocks."),
        **_projection_params(shapes, hidden),
    }


def default_params(shapes: Shapes) -> dict[str, Any]:
    """Guesses, from the published networks: the one for 512 x 512 has another MLP and a larger encoder.

    Raises as `params_from` does.
    """
    hidden = matrix(shapes, "s_embedder.proj.weight")[0]
    depth = count_blocks(shapes, "patch_blocks.")
    encoder = matrix(shapes, f"{_PROJECTION}input_proj.weight")[1]
    mlp = matrix(shapes, "patch_blocks.0.mlp.w1.weight")[0]
    large = mlp != swiglu_size(hidden) or encoder == _LARGE_ENCODER
    return {
        "in_context_start": max(0, min(8 if depth > _DEEP else 4, depth - 1)),
        "encoder_num_heads": guess_heads(encoder),
        "single_silu_cond": large,
        "noise_scale": 2.0 if large else 1.0,
    }


def _context_len(shapes: Shapes) -> int:
    if "in_context_posemb" not in shapes:
        return 0
    shape = shapes["in_context_posemb"]
    if len(shape) != 3:
        raise ValueError(f"tensor in_context_posemb is {list(shape)}, and should have 3 dimensions")
    return shape[1]


def _projection_params(shapes: Shapes, hidden: int) -> dict[str, int]:
    blocks = count_blocks(shapes, f"{_PROJECTION}blocks.")
    heads = {"grounding_proj_heads": _heads(shapes, f"{_PROJECTION}blocks.0.", hidden)} if blocks else {}
    return {"grounding_proj_blocks": blocks, **heads}


def _heads(shapes: Shapes, prefix: str, width: int) -> int:
    head = vector(shapes, f"{prefix}attn.q_norm.weight")
    if width % head:
        raise ValueError(f"{width} channels do not divide into heads of {head}")
    return width // head
