"""Sizes of an x-prediction network, and what the shapes of its tensors tell of them (spec: xpred, sections 3 and 6.4).

One dataclass serves all four networks: with or without registers, with or without a pixel path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..normalization import expand_normalization
from ..shapes import Shapes, count_blocks, matrix, vector

QK_NORMS = ("", "rmsnorm", "layernorm")
COUNTS = ("depth", "heads", "patch_size", "in_channels", "num_classes", "compress_ratio", "image_size")
LARGEST_SIDE = 2**14  # of a picture, as in settings


@dataclass(frozen=True)
class XPredParams:
    """Sizes of an x-prediction network.

    Raises:
        ValueError: sizes that no network can have.
    """

    dim: int  #                                D, width of the patch path
    depth: int  #                              its blocks
    heads: int = 4  #                          in both paths
    dim_head: int = 32  #                      channels of a head; heads * dim_head need not be a width
    patch_size: int = 4
    in_channels: int = 3
    num_classes: int = 10
    mlp_hidden_dim: int | None = None  #       of a patch block; None = 4 * dim
    qk_norm: str = ""  #                       "" = none, "rmsnorm" or "layernorm"
    num_registers: int = 0  #                  tokens of a class; 0 = its class is one vector of the condition
    pixel_dim: int = 0  #                      P, width of the pixel path
    pixel_depth: int = 0  #                    its blocks; 0 = no pixel path
    compress_ratio: int = 1  #                 side of the square of pixels that attention sees as one token
    pixel_mlp_hidden_dim: int | None = None  # of a pixel block; None = 4 * pixel_dim
    use_abs_pe: bool = True  #                 learned tables of positions, for a square of image_size
    image_size: int = 32
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_widths()
        self._check_pixel_path()
        if self.qk_norm not in QK_NORMS:
            raise ValueError(f'qk_norm is "{self.qk_norm}"; it must be "rmsnorm", "layernorm", or "" for none.')
        if not self.patch_size <= self.image_size <= LARGEST_SIDE:
            raise ValueError(
                f"image_size is {self.image_size}; it must be at least a patch of {self.patch_size}, and at most "
                f"{LARGEST_SIDE}."
            )
        expand_normalization(self)

    def _check_counts(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("mlp_hidden_dim", "pixel_mlp_hidden_dim"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("num_registers", "pixel_dim", "pixel_depth"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0.")

    def _check_widths(self) -> None:
        if self.dim < 4 or self.dim % 2:
            raise ValueError(f"dim is {self.dim}; it must be even and at least 4, for two frequencies of the time.")
        if self.dim_head < 2 or self.dim_head % 2:
            raise ValueError(f"dim_head is {self.dim_head}; it must be even, for its channels turn in pairs.")

    def _check_pixel_path(self) -> None:
        if bool(self.pixel_dim) != bool(self.pixel_depth):
            raise ValueError(
                f"pixel_dim is {self.pixel_dim} and pixel_depth is {self.pixel_depth}; "
                "a pixel path needs both, and a network without one needs 0 for both."
            )

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_dim or 4 * self.dim

    @property
    def pixel_mlp_width(self) -> int:
        return self.pixel_mlp_hidden_dim or 4 * self.pixel_dim

    @property
    def grid(self) -> int:
        """Patches along a side of the table of positions."""
        return self.image_size // self.patch_size

    @property
    def pixel_qk_norm(self) -> str:
        """Pixel blocks normalize queries and keys only next to registers (spec: xpred, section 2)."""
        return self.qk_norm if self.num_registers else ""


def params_from(shapes: Shapes) -> dict[str, Any]:
    """Sizes that shapes by the reference's keys tell exactly (spec: xpred, section 6.4).

    Without q_norm, heads and dim_head are not in there: compare their product with `inner_width`. Nor is image_size,
    unless there is a table of pixels: see `guess_image_size`.

    Raises:
        KeyError: a tensor that tells something is not there.
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

    Only a guess without a table of pixels: a table of patches does not tell a remainder that makes no patch.
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
    told = {
        "pixel_dim": _square_conv(shapes, "to_pixel_patch.0.weight")[0],
        "pixel_depth": count_blocks(shapes, "pit_blocks."),
        "compress_ratio": _square_conv(shapes, compress)[2] if compress in shapes else 1,
        "pixel_mlp_hidden_dim": matrix(shapes, "pit_blocks.0.ffn.0.weight")[0],
    }
    size = guess_image_size(shapes)
    return told if size is None else {**told, "image_size": size}


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
