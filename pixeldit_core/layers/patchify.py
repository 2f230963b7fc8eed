"""Images to patches of pixels and back.

Legend: B batch, C channels, H x W image, p patch size, L patches, P = p*p pixels per patch.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def to_pixel_tokens(image: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> [B*L, P, C]: patches row-major, pixels row-major inside a patch, channels last."""
    return rearrange(image, "b c (h p) (w q) -> (b h w) (p q) c", p=patch_size, q=patch_size)


def from_pixel_tokens(tokens: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """[B*L, P, C] -> [B, C, H, W], the inverse of `to_pixel_tokens`."""
    p = patch_size
    return rearrange(tokens, "(b h w) (p q) c -> b c (h p) (w q)", h=height // p, w=width // p, p=p, q=p)
