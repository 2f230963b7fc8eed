"""Images to tokens and back, once per forward: every rearrangement is row-major over the grid.

Legend: B batch, C channels, H x W image, p patch size, L = H/p * W/p patches, P = p*p pixels per patch.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def to_tokens(image: Tensor) -> Tensor:
    """[B, C, H, W] -> a token for each pixel [B, H*W, C]."""
    return rearrange(image, "b c h w -> b (h w) c")


def to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, H*W, C] -> [B, C, H, W], the inverse of `to_tokens`."""
    return rearrange(tokens, "b (h w) c -> b c h w", h=height, w=width)


def to_patch_tokens(image: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> a token for each patch [B, L, C*P], a patch read channel by channel.

    In memory the tokens are columns, as `F.unfold` has them: another layout would be rounded otherwise in bfloat16.
    """
    return rearrange(image, "b c (h p) (w q) -> b (c p q) (h w)", p=patch_size, q=patch_size).transpose(1, 2)


def to_pixel_tokens(image: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> a token for each pixel of each patch [B*L, P, C]."""
    return rearrange(image, "b c (h p) (w q) -> (b h w) (p q) c", p=patch_size, q=patch_size)


def from_pixel_tokens(tokens: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """[B*L, P, C] -> [B, C, H, W], the inverse of `to_pixel_tokens`."""
    p = patch_size
    return rearrange(tokens, "(b h w) (p q) c -> b c (h p) (w q)", h=height // p, w=width // p, p=p, q=p)
