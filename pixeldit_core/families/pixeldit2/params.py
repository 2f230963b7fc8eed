"""Sizes of a PixelDiT2 (spec: pixeldit2, section 2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...layers.mlp import swiglu_size
from ..normalization import expand_normalization


@dataclass(frozen=True)
class PixelDiT2Params:
    """Sizes of a PixelDiT2.

    Four of them are not in the shapes of a file: `in_context_start`, `encoder_num_heads`, `single_silu_cond` and
    `noise_scale`.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_size: int  #                         D, width of the tokens
    num_heads: int
    depth: int  #                               patch blocks
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000  #                  without the null class
    in_context_len: int = 32  #                 K, context tokens of the class; 0 = none
    in_context_start: int = 8  #                patch block that they enter before
    mlp_hidden_size: int | None = None  #       of a patch block's SwiGLU; None = swiglu_size(hidden_size)
    encoder_dim: int = 384  #                   width of the frozen encoder
    encoder_depth: int = 12  #                  its blocks; 0 = it is not there, and nothing can be grounded
    encoder_num_heads: int = 6
    grounding_proj_blocks: int = 1  #           blocks of the projection of its features
    grounding_proj_heads: int | None = None  #  their heads; None = num_heads
    single_silu_cond: bool = False  #           no SiLU of the condition but that of each block
    noise_scale: float = 1.0  #                 std of the noise
    image_mean: tuple[float, ...] = (0.5,)  #   of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        self._check_counts()
        _check_heads("hidden_size", self.hidden_size, "num_heads", self.num_heads)
        _check_heads("hidden_size", self.hidden_size, "grounding_proj_heads", self.proj_heads)
        _check_heads("encoder_dim", self.encoder_dim, "encoder_num_heads", self.encoder_num_heads)
        if self.in_channels != 3:
            raise ValueError(f"in_channels is {self.in_channels}; it must be 3, for the encoder looks at RGB.")
        if not 0 <= self.in_context_start < self.depth:
            raise ValueError(
                f"in_context_start is {self.in_context_start}; it must be one of the {self.depth} patch blocks, 0 to "
                f"{self.depth - 1}."
            )
        if not 0 < self.noise_scale < math.inf:
            raise ValueError(f"noise_scale is {self.noise_scale}; it must be greater than 0 (published: 1 or 2).")
        expand_normalization(self)

    def _check_counts(self) -> None:
        for name in ("hidden_size", "depth", "patch_size", "num_classes", "encoder_dim", "mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("in_context_len", "encoder_depth", "grounding_proj_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0.")

    @property
    def mlp_width(self) -> int:
        return swiglu_size(self.hidden_size) if self.mlp_hidden_size is None else self.mlp_hidden_size

    @property
    def proj_heads(self) -> int:
        return self.num_heads if self.grounding_proj_heads is None else self.grounding_proj_heads


def _check_heads(width_name: str, width: int, name: str, heads: int) -> None:
    if heads < 1 or width % heads or (width // heads) % 4:
        raise ValueError(
            f"{name} is {heads}; {width_name} {width} must divide into heads of a multiple of 4 channels, for the "
            "rotary positions."
        )
