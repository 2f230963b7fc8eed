"""Sizes of a PixelHDM; names and defaults are the reference's configuration (spec: pixelhdm, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..normalization import expand_normalization

GATE_TYPES = ("headwise", "elementwise")
GATE_ACTIVATIONS = ("sigmoid", "silu")


@dataclass(frozen=True)
class PixelHDMParams:
    """Sizes of a PixelHDM.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_dim: int = 1024  #                  D, width of the patch pathway and of the text encoder's states
    pixel_dim: int = 16  #                     C, width of the pixel pathway
    patch_size: int = 16
    patch_layers: int = 16  #                  patch blocks
    pixel_layers: int = 4  #                   pixel blocks
    num_heads: int = 16  #                     of queries, in patch and pixel blocks
    num_kv_heads: int = 4  #                   of keys and values
    mlp_ratio: float | None = None  #          hidden size of both SwiGLUs over their width; None = 3
    mlp_hidden_dim: int | None = None  #       of a patch block's SwiGLU; None = by the ratio
    pixel_mlp_hidden_dim: int | None = None  # of a pixel block's; None = by the ratio
    bottleneck_dim: int | None = None  #       of the patch embedding; None = patch_size**2 // 4
    in_channels: int = 3
    out_channels: int = 3
    time_embed_dim: int = 256  #               features of the time
    gate_type: str = "headwise"  #             one gate per head, or "elementwise"
    gate_activation: str = "sigmoid"  #        or "silu"
    gate_bias: bool = False
    mrope_text_dim: int = 16  #                channels of a head that rotate with the position in the text
    mrope_img_h_dim: int = 24  #               with the row
    mrope_img_w_dim: int = 24  #               with the column
    mrope_theta: float = 10000.0
    mrope_text_max_len: int = 511  #           text tokens that there are positions for
    mrope_img_max_height: int = 128  #         rows of patches
    mrope_img_max_width: int = 128  #          columns of patches
    max_patches: int = 4096  #                 that the authors' pipeline generates
    text_max_length: int = 511  #              a prompt is cut to this
    time_eps: float = 0.05  #                  training saw times from this to 1 - this
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_heads()
        self._check_mlp("mlp_hidden_dim", self.hidden_dim)
        self._check_mlp("pixel_mlp_hidden_dim", self.pixel_dim)
        _check_choice("gate_type", self.gate_type, GATE_TYPES)
        _check_choice("gate_activation", self.gate_activation, GATE_ACTIVATIONS)
        if self.time_embed_dim % 2:
            raise ValueError(f"time_embed_dim is {self.time_embed_dim}; it must be even, half sines and half cosines.")
        expand_normalization(self)

    def _check_counts(self) -> None:
        counts = ("hidden_dim", "pixel_dim", "patch_size", "patch_layers", "pixel_layers", "num_heads", "num_kv_heads")
        limits = ("mrope_text_max_len", "mrope_img_max_height", "mrope_img_max_width", "max_patches", "text_max_length")
        for name in (*counts, *limits, "in_channels", "out_channels", "time_embed_dim", "bottleneck"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.out_channels != self.in_channels:
            raise ValueError(
                f"out_channels is {self.out_channels} and in_channels is {self.in_channels}; they must be equal, for "
                "the network predicts a velocity of the image."
            )
        for name in ("mlp_ratio", "mlp_hidden_dim", "pixel_mlp_hidden_dim", "mrope_theta"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        if not 0 < self.time_eps < 0.5:
            raise ValueError(f"time_eps is {self.time_eps}; it must be above 0 and below 0.5.")
        for name in ("mlp_width", "pixel_mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves nothing of hidden_dim or pixel_dim.")

    def _check_heads(self) -> None:
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} does not divide into {self.num_heads} heads.")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads of queries cannot share {self.num_kv_heads} heads of keys and values evenly."
            )
        if sum(self.mrope_dims) != self.head_dim or any(size < 0 or size % 2 for size in self.mrope_dims):
            raise ValueError(
                f"mrope_text_dim, mrope_img_h_dim and mrope_img_w_dim are {self.mrope_dims}; they must be even and add "
                f"up to the {self.head_dim} channels of a head. Shapes alone do not determine them: give the config."
            )

    def _check_mlp(self, name: str, width: int) -> None:
        hidden = getattr(self, name)
        if hidden is None or self.mlp_ratio is None:
            return
        if hidden != int(width * self.mlp_ratio):
            raise ValueError(
                f"{name} is {hidden}, and mlp_ratio {self.mlp_ratio} makes {int(width * self.mlp_ratio)} of {width}."
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_dim // self.num_heads

    @property
    def mrope_dims(self) -> tuple[int, int, int]:
        return (self.mrope_text_dim, self.mrope_img_h_dim, self.mrope_img_w_dim)

    @property
    def bottleneck(self) -> int:
        return self.patch_size**2 // 4 if self.bottleneck_dim is None else self.bottleneck_dim

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_dim or int(self.hidden_dim * (self.mlp_ratio or 3.0))

    @property
    def pixel_mlp_width(self) -> int:
        return self.pixel_mlp_hidden_dim or int(self.pixel_dim * (self.mlp_ratio or 3.0))

    @property
    def txt_embed_dim(self) -> int:
        """Width of the text encoder's states, which enter as they are."""
        return self.hidden_dim

    @property
    def txt_max_length(self) -> int:
        """Tokens of a prompt that are read."""
        return self.text_max_length


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is "{value}"; it must be one of {", ".join(choices)}.')
