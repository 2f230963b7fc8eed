"""Sizes of the official networks; names are the official constructors' (spec: official, sections 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...layers.mlp import swiglu_size
from ..normalization import Normalization, expand_normalization


class DualPathParams(Normalization, Protocol):
    """What both official networks have."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_groups(self) -> int: ...
    @property
    def pixel_depth(self) -> int: ...
    @property
    def patch_size(self) -> int: ...
    @property
    def pixel_hidden_size(self) -> int: ...
    @property
    def attention_width(self) -> int: ...
    @property
    def attention_heads(self) -> int: ...
    @property
    def use_pixel_abs_pos(self) -> bool: ...
    @property
    def pit_adaln_post_modulation(self) -> bool: ...


@dataclass(frozen=True)
class PixelDiTParams:
    """Sizes of a class-conditional PixelDiT.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_size: int  #                        D, width of the patch pathway
    num_groups: int  #                         attention heads of the patch pathway
    patch_depth: int  #                        patch blocks
    pixel_depth: int  #                        pixel blocks
    patch_size: int = 16  #                    p
    pixel_hidden_size: int = 16  #             C, width of a pixel token
    num_classes: int = 1000  #                 without the null class
    in_channels: int = 3
    mlp_hidden_size: int | None = None  #      of the SwiGLU; None = swiglu_size(hidden_size)
    pixel_attn_hidden_size: int | None = None  # width of the compacted attention; None = hidden_size
    pixel_num_groups: int | None = None  #     its heads; None = num_groups
    use_pixel_abs_pos: bool = True
    pit_adaln_post_modulation: bool = False  # modulate the results of pixel blocks' branches, not their inputs
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_size or swiglu_size(self.hidden_size)

    @property
    def attention_width(self) -> int:
        return self.pixel_attn_hidden_size or self.hidden_size

    @property
    def attention_heads(self) -> int:
        return self.pixel_num_groups or self.num_groups


@dataclass(frozen=True)
class PixelDiTT2IParams:
    """Sizes of a text-to-image PixelDiT.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_size: int  #                        D, width of the patch pathway
    num_groups: int  #                         attention heads of the patch pathway
    patch_depth: int  #                        joint blocks
    pixel_depth: int  #                        pixel blocks
    pixel_attn_hidden_size: int  #             width of the compacted attention
    pixel_num_groups: int  #                   its heads
    patch_size: int = 16  #                    p
    pixel_hidden_size: int = 16  #             C, width of a pixel token
    in_channels: int = 3
    txt_embed_dim: int = 2304  #               width of the text encoder's states
    txt_max_length: int = 300  #               text tokens beyond these are cut
    mlp_hidden_size: int | None = None  #      of the SwiGLU; None = swiglu_size(hidden_size)
    use_text_rope: bool = True
    text_rope_theta: float = 10000.0
    use_pixel_abs_pos: bool = True
    pit_adaln_post_modulation: bool = False  # modulate the results of pixel blocks' branches, not their inputs
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_size or swiglu_size(self.hidden_size)

    @property
    def attention_width(self) -> int:
        return self.pixel_attn_hidden_size

    @property
    def attention_heads(self) -> int:
        return self.pixel_num_groups


def _check(params: DualPathParams) -> None:
    _check_heads(params.hidden_size, params.num_groups, "hidden_size")
    _check_heads(params.attention_width, params.attention_heads, "pixel_attn_hidden_size")
    if params.pixel_hidden_size % 4:
        raise ValueError(f"pixel_hidden_size is {params.pixel_hidden_size}; it must be a multiple of 4.")
    if params.pixel_depth < 1:
        raise ValueError(f"pixel_depth is {params.pixel_depth}; a PixelDiT has at least one pixel block.")
    expand_normalization(params)


def _check_heads(width: int, heads: int, name: str) -> None:
    if heads < 1 or width % heads or (width // heads) % 4:
        raise ValueError(
            f"{name} {width} does not divide into {heads} heads of a multiple of 4 channels; the rotary positions need "
            "that."
        )
