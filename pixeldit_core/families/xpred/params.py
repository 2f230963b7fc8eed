"""Sizes of an x-prediction network (spec: xpred, section 3).

One dataclass serves all four networks: with or without registers, with or without a pixel pathway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ...layers.attention import QKNorm
from ...settings import MAX_SIDE
from ..normalization import expand_normalization

COUNTS = ("depth", "heads", "patch_size", "in_channels", "num_classes", "compress_ratio", "image_size")


@dataclass(frozen=True)
class XPredParams:
    """Sizes of an x-prediction network.

    Raises:
        ValueError: sizes that no network can have.
    """

    dim: int  #                                D, width of the patch pathway
    depth: int  #                              its blocks
    heads: int = 4  #                          in both pathways
    dim_head: int = 32  #                      channels of a head; heads * dim_head need not be a width
    patch_size: int = 4
    in_channels: int = 3
    num_classes: int = 10
    mlp_hidden_dim: int | None = None  #       of a patch block; None = 4 * dim
    qk_norm: QKNorm = ""  #                    "" = none, "rmsnorm" or "layernorm"
    num_registers: int = 0  #                  tokens of a class; 0 = its class is one vector of the condition
    pixel_dim: int = 0  #                      P, width of the pixel pathway
    pixel_depth: int = 0  #                    its blocks; 0 = no pixel pathway
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
        if self.qk_norm not in get_args(QKNorm):
            raise ValueError(f'qk_norm is "{self.qk_norm}"; it must be "rmsnorm", "layernorm", or "" for none.')
        if not self.patch_size <= self.image_size <= MAX_SIDE:
            raise ValueError(
                f"image_size is {self.image_size}; it must be at least a patch of {self.patch_size}, and at most "
                f"{MAX_SIDE}."
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
            raise ValueError(f"dim_head is {self.dim_head}; it must be even, for its channels rotate in pairs.")

    def _check_pixel_path(self) -> None:
        if bool(self.pixel_dim) != bool(self.pixel_depth):
            raise ValueError(
                f"pixel_dim is {self.pixel_dim} and pixel_depth is {self.pixel_depth}; "
                "a pixel pathway needs both, and a network without one needs 0 for both."
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
    def pixel_qk_norm(self) -> QKNorm:
        """Pixel blocks normalize queries and keys only next to registers (spec: xpred, section 2)."""
        return self.qk_norm if self.num_registers else ""
