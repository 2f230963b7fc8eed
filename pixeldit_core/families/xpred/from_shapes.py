"""Params of an x-prediction network from the shapes of its tensors (spec: xpred, section 6.4)."""

from __future__ import annotations

import math
from typing import Any

from ..shapes import Shapes, count_blocks, matrix, vector


def params_from(shapes: Shapes) -> dict[str, Any]:
    """Sizes that follow exactly from the shapes by the reference's keys.

    Without q_norm, heads and dim_head are not in there: compare their product with `inner_width`. Nor is image_size,
    unless there is a table of pixels: see `guess_image_size`.

    Raises:
        KeyError: a tensor that determines a size is missing.
        ValueError: tensors that contradict each other, or have another rank.
    """
    dim, channels, patch_size = _square_conv(shapes, _patches_key(shapes))
    blocks = "dit_blocks." if _has_pixels(shapes) else "blocks."
    return {
        "dim": dim,
        "depth": count_blocks(shapes, blocks),
        "patch_size": patch_size,
        "in_channels": channels,
        "mlp_hidden_dim": matrix(shapes, f"{blocks}0.mlp.0.weight")[0],
        "use_abs_pe": _table_key(shapes) in shapes,
        **_class_params(shapes),
        **_head_params(shapes, f"{blocks}0.attn."),
        **(_pixel_params(shapes) if _has_pixels(shapes) else {}),
    }


def inner_width(shapes: Shapes) -> int:
    """heads * dim_head; raises as `params_from` does."""
    key = "dit_blocks.0.attn.qkv.weight" if _has_pixels(shapes) else "blocks.0.attn.qkv.weight"
    rows = matrix(shapes, key)[0]
    if rows % 3:
        raise ValueError(f"tensor {key} has {rows} rows, which do not divide into queries, keys and values")
    return rows // 3


def guess_image_size(shapes: Shapes) -> int | None:
    """Size that the tables of positions are for; None without a table. Raises as `params_from` does.

    Only a guess without a table of pixels: a table of patches leaves open a remainder that makes no patch.
    """
    if _table_key(shapes) not in shapes:
        return None
    if _has_pixels(shapes):
        return _side(shapes, "pixel_pos_embedding")
    return _side(shapes, _table_key(shapes)) * _square_conv(shapes, _patches_key(shapes))[2]


def _has_pixels(shapes: Shapes) -> bool:
    return any(key.startswith("pit_blocks.") for key in shapes)


def _patches_key(shapes: Shapes) -> str:
    return "to_semantic_patch.0.weight" if _has_pixels(shapes) else "to_patch_embedding.0.weight"


def _table_key(shapes: Shapes) -> str:
    return "semantic_pos_embedding" if _has_pixels(shapes) else "pos_embedding"


def _class_params(shapes: Shapes) -> dict[str, int]:
    if "class_registers" not in shapes:
        return {"num_classes": matrix(shapes, "class_embed.weight")[0] - 1, "num_registers": 0}
    rows, registers, _ = _of_rank(shapes, "class_registers", 3)
    return {"num_classes": rows - 1, "num_registers": registers}


def _head_params(shapes: Shapes, prefix: str) -> dict[str, Any]:
    if f"{prefix}q_norm.weight" not in shapes:
        return {"qk_norm": ""}
    inner, head = inner_width(shapes), vector(shapes, f"{prefix}q_norm.weight")
    if inner % head:
        raise ValueError(f"{inner} channels of queries do not divide into heads of {head}")
    return {
        "qk_norm": "layernorm" if f"{prefix}q_norm.bias" in shapes else "rmsnorm",
        "heads": inner // head,
        "dim_head": head,
    }


def _pixel_params(shapes: Shapes) -> dict[str, int]:
    compress = "pit_blocks.0.attn.compress.proj.weight"
    sizes: dict[str, int] = {
        "pixel_dim": _square_conv(shapes, "to_pixel_patch.0.weight")[0],
        "pixel_depth": count_blocks(shapes, "pit_blocks."),
        "compress_ratio": _square_conv(shapes, compress)[2] if compress in shapes else 1,
        "pixel_mlp_hidden_dim": matrix(shapes, "pit_blocks.0.ffn.0.weight")[0],
    }
    size = guess_image_size(shapes)
    return sizes if size is None else {**sizes, "image_size": size}


def _of_rank(shapes: Shapes, key: str, rank: int) -> tuple[int, ...]:
    if len(shapes[key]) != rank or 0 in shapes[key]:
        raise ValueError(f"tensor {key} is {list(shapes[key])}, and should have {rank} dimensions")
    return shapes[key]


def _square_conv(shapes: Shapes, key: str) -> tuple[int, int, int]:
    """Outputs, inputs and side of the kernel of a convolution."""
    outputs, inputs, height, width = _of_rank(shapes, key, 4)
    if height != width:
        raise ValueError(f"tensor {key} is {list(shapes[key])}, and its last two dimensions should be equal")
    return outputs, inputs, height


def _side(shapes: Shapes, key: str) -> int:
    """Of the square grid that a table of positions [1, side * side, width] is for."""
    rows = _of_rank(shapes, key, 3)[1]
    if math.isqrt(rows) ** 2 != rows:
        raise ValueError(f"tensor {key} has {rows} positions, which make no square")
    return math.isqrt(rows)
