"""PixelHDM, a text-to-image relative of PixelDiT (spec: pixelhdm, sections 1 to 4).

Text and patches are one sequence in the patch blocks; the pixel pathway paints from what becomes of the patches.
Legend: B batch, H x W image, L patches, P = p*p pixels per patch, T text tokens, D width, C pixel width, e head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.adaln import EPS
from ...layers.attention import Attention, scaled_dot_product
from ...layers.embeddings import LinearEmbedder
from ...layers.patchify import from_pixel_tokens, to_pixel_tokens
from ...layers.rope import Rope, mrope
from .layers import PatchBlock, PatchEmbedder, TimeEmbedder
from .params import PixelHDMParams, params_from
from .pixel_pathway import PixelBlock

__all__ = ["PixelHDM", "PixelHDMParams", "params_from"]


class PixelHDM(nn.Module):
    """Predicts the velocity `image - noise` of a noisy image, from its time and a text.

    `attention(q, k, v, **options)` takes [B, h, L, e] three times and gives [B, L, h*e]; where a text has padding,
    patch blocks add the option `mask`, boolean [B, 1, 1, T + L], True where a key takes part.
    """

    def __init__(
        self,
        params: PixelHDMParams,
        *,
        operations: Any = nn,
        attention: Attention = scaled_dot_product,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.params = params
        factory = {"operations": operations, "device": device, "dtype": dtype}
        kit = {"attention": attention, **factory}
        self.patch_embed = PatchEmbedder(params, **factory)
        self.pixel_embed = LinearEmbedder(params.in_channels, params.pixel_dim, **factory)
        self.time_embed = TimeEmbedder(params, **factory)
        self.patch_blocks = nn.ModuleList(PatchBlock(params, **kit) for _ in range(params.patch_layers))
        self.pixel_blocks = nn.ModuleList(PixelBlock(params, **kit) for _ in range(params.pixel_layers))
        self.output_norm = operations.RMSNorm(params.pixel_dim, eps=EPS, device=device, dtype=dtype)
        self.output_proj = LinearEmbedder(params.pixel_dim, params.out_channels, **factory)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Velocity towards the image.

        Args:
            x: [B, H, W, in_channels] or [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch
                size. Where both fit, it is the latter.
            time: [B], [B, 1] or a scalar, 0 = noise and 1 = image; kept in float32 for its features.
            text: [B, T, D], states of the text encoder; None = no text.
            mask: [B, T], not 0 where there is a token of the text; None = everywhere.
            pooled: [B, D], one vector for the whole text; None = none.
            options: handed to the attention function.

        Returns:
            [B, H, W, out_channels].

        Raises:
            ValueError: shapes that do not fit, or more patches or tokens than there are positions for.
        """
        x = channels_first(x, self.params.in_channels)
        check_image(x, self.params)
        check_text(x, text, mask, pooled, self.params)
        pixels = to_pixel_tokens(x, self.params.patch_size)  # [B*L, P, in_channels]
        t_emb = self.time_embed(time.reshape(-1).expand(len(x)), x.dtype)  # [B, D]
        s = self.patch_embed(pixels.flatten(1).unflatten(0, (len(x), -1)))  # [B, L, D]
        s = self.understand(s, t_emb, text, mask, x.shape[2:], **options)  # [B, L, D]
        s_cond = s + (t_emb if pooled is None else t_emb + pooled.to(x.dtype))[:, None]
        return self.paint(pixels, s_cond, x.shape[2:], **options)

    def understand(
        self,
        s: Tensor,
        t_emb: Tensor,
        text: Tensor | None,
        mask: Tensor | None,
        size: tuple[int, int],
        **options: Any,
    ) -> Tensor:
        """The patch blocks over [text, patches]: the patches [B, L, D]."""
        rope = self.joint_rope(s, text, mask, size)
        length = 0 if text is None else text.shape[1]
        if length:
            s = torch.cat([text.to(s.dtype), s], dim=1)  # [B, T + L, D]
        if mask is not None:
            keys = nn.functional.pad(mask != 0, (0, s.shape[1] - length), value=True)
            options["mask"] = keys[:, None, None]  # [B, 1, 1, T + L]
        for block in self.patch_blocks:
            s = block(s, t_emb, rope, **options)
        return s[:, length:]

    def paint(self, pixels: Tensor, s_cond: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
        """The pixel pathway, from pixels [B*L, P, in_channels] and patches [B, L, D] to [B, H, W, out_channels]."""
        rope = mrope(grid_positions(size, self.params.patch_size, pixels.device), *self.mrope_settings)
        batch, s_cond = len(s_cond), s_cond.flatten(0, 1)
        z = self.pixel_embed(pixels)  # [B*L, P, C]
        for block in self.pixel_blocks:
            z = block(z, s_cond, batch, rope, **options)
        image = from_pixel_tokens(self.output_proj(self.output_norm(z)), *size, self.params.patch_size)
        return image.movedim(1, -1)

    def joint_rope(self, s: Tensor, text: Tensor | None, mask: Tensor | None, size: tuple[int, int]) -> Rope:
        """Rotary tables [1 or B, T + L, e/2] of text and patches."""
        grid = grid_positions(size, self.params.patch_size, s.device)
        if text is None:
            return mrope(grid[None], *self.mrope_settings)
        return mrope(joint_positions(grid, text.shape[1], mask), *self.mrope_settings)

    @property
    def mrope_settings(self) -> tuple[tuple[int, int, int], float]:
        return self.params.mrope_dims, self.params.mrope_theta


def grid_positions(size: tuple[int, int], patch_size: int, device: torch.device) -> Tensor:
    """(0, row, column) of each patch, [L, 3]."""
    rows, columns = (torch.arange(length // patch_size, device=device) for length in size)
    grid = torch.cartesian_prod(rows, columns)
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1)


def joint_positions(grid: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """[1 or B, T + L, 3]: tokens of the text are counted from 0, padding and all; patches follow the tokens that count.

    That is how the model was trained: with padding on the left, some text and the patches share a place.
    """
    text = torch.zeros(length, 3, dtype=torch.int64, device=grid.device)
    text[:, 0] = torch.arange(length, device=grid.device)
    if mask is None:
        mask = torch.ones(1, length, device=grid.device)
    patches = grid.repeat(len(mask), 1, 1)
    patches[:, :, 0] = (mask != 0).sum(dim=1)[:, None]
    return torch.cat([text.expand(len(mask), -1, -1), patches], dim=1)


def channels_first(x: Tensor, channels: int) -> Tensor:
    """An image of either layout as [B, channels, H, W]; the reference looks at the second axis first."""
    if x.ndim == 4 and x.shape[1] == channels:
        return x
    if x.ndim == 4 and x.shape[-1] == channels:
        return x.movedim(-1, 1)
    raise ValueError(f"the image has shape {list(x.shape)}; expected [B, H, W, {channels}] or [B, {channels}, H, W].")


def check_image(x: Tensor, params: PixelHDMParams) -> None:
    """Raises ValueError unless H and W of [B, C, H, W] are whole patches that there are positions for."""
    p, limits = params.patch_size, (params.mrope_img_max_height, params.mrope_img_max_width)
    for what, length, limit in zip(("height", "width"), x.shape[2:], limits, strict=True):
        if not length or length % p:
            near = max(p, round(length / p) * p)
            raise ValueError(f"the image's {what} is {length}; it must be a multiple of {p}, such as {near}.")
        if length > limit * p:
            raise ValueError(f"the image's {what} is {length}; there are positions for up to {limit * p}.")


def check_text(
    x: Tensor, text: Tensor | None, mask: Tensor | None, pooled: Tensor | None, params: PixelHDMParams
) -> None:
    """Raises ValueError unless text, mask and pooled vector belong to the images and to each other."""
    batch, width = len(x), params.hidden_dim
    if pooled is not None and pooled.shape != (batch, width):
        raise ValueError(f"the pooled text has shape {list(pooled.shape)}; expected [{batch}, {width}].")
    if text is None:
        if mask is not None:
            raise ValueError("there is a mask and no text: give both, or neither.")
        return
    if text.ndim != 3 or len(text) != batch or text.shape[2] != width:
        raise ValueError(f"the text has shape {list(text.shape)}; expected [{batch}, T, {width}].")
    if text.shape[1] > params.mrope_text_max_len:
        raise ValueError(
            f"the text has {text.shape[1]} tokens; there are positions for {params.mrope_text_max_len}: cut it."
        )
    if mask is not None and mask.shape != text.shape[:2]:
        raise ValueError(f"the mask has shape {list(mask.shape)}; the text needs {list(text.shape[:2])}.")
