"""PixelHDM, text-to-image (spec: pixelhdm, sections 1 to 4).

Text and patches are one sequence in the patch blocks; the pixel pathway is conditioned on the patches they return.
Legend: B batch, H x W image, L patches, P = p*p pixels per patch, T text tokens, D width, C pixel width, e head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention, scaled_dot_product
from ...layers.blocks import PatchBlocks
from ...layers.embeddings import LinearEmbedder, TimestepEmbedder
from ...layers.operations import RMS_NORM_EPS, Device, Operations
from ...layers.patchify import from_pixel_tokens, to_pixel_tokens
from ...layers.rope import Move, Rope, moved, mrope
from ...layers.tables import KeptTables
from ...sizes import Size
from .layers import PatchBlock, PatchEmbedder, time_features
from .params import PixelHDMParams
from .pixel_pathway import PixelBlock


class PixelHDM(PatchBlocks, nn.Module):
    """Predicts the velocity `image - noise` of a noisy image, from its time and a text.

    `attention(q, k, v, **options)` takes [B, h, L, e] three times and gives [B, L, h*e]; where a text has padding,
    patch blocks add the option `mask`, boolean [B, 1, 1, T + L], True where a key takes part.
    """

    def __init__(
        self,
        params: PixelHDMParams,
        *,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.params = params
        self.tables = KeptTables()
        factory_kwargs: dict[str, Any] = {"operations": operations, "device": device, "dtype": dtype}
        self.patch_embed = PatchEmbedder(params, **factory_kwargs)
        self.pixel_embed = LinearEmbedder(params.in_channels, params.pixel_dim, **factory_kwargs)
        self.time_embed = TimestepEmbedder(params.hidden_dim, params.time_embed_dim, time_features, **factory_kwargs)
        self.patch_blocks = nn.ModuleList(
            PatchBlock(params, attention=attention, **factory_kwargs) for _ in range(params.patch_layers)
        )
        self.pixel_blocks = nn.ModuleList(
            PixelBlock(params, attention=attention, **factory_kwargs) for _ in range(params.pixel_layers)
        )
        self.output_norm = operations.RMSNorm(params.pixel_dim, eps=RMS_NORM_EPS, device=device, dtype=dtype)
        self.output_proj = LinearEmbedder(params.pixel_dim, params.out_channels, **factory_kwargs)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        pooled: Tensor | None = None,
        *,
        move: Move | None = None,
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
            move: moves the rows and columns of the patches before they are rotated; None = as trained.
            options: passed to the attention function.

        Returns:
            [B, H, W, out_channels].
        """
        assert text is not None or mask is None, "a mask needs a text"
        x = channels_first(x, self.params.in_channels)
        size = (x.shape[2], x.shape[3])
        pixels = to_pixel_tokens(x, self.params.patch_size)  # [B*L, P, in_channels]
        t_emb = self.time_embed(time.reshape(-1).expand(len(x)), x.dtype)  # [B, D]
        s = self.patch_embed(pixels.flatten(1).unflatten(0, (len(x), -1)))  # [B, L, D]
        s = self.patch_pathway(s, t_emb, text, mask, size, move, **options)  # [B, L, D]
        s_cond = s + (t_emb if pooled is None else t_emb + pooled.to(x.dtype))[:, None]
        return self.pixel_pathway(pixels, s_cond, size, move, **options)

    def patch_pathway(
        self,
        s: Tensor,
        t_emb: Tensor,
        text: Tensor | None,
        mask: Tensor | None,
        size: Size,
        move: Move | None,
        **options: Any,
    ) -> Tensor:
        """The patch blocks over [text, patches]: the patches [B, L, D] of an image of `size`."""
        rope = self.joint_rope(s, text, mask, size, move)
        length = 0 if text is None else text.shape[1]
        if text is not None and length:
            s = torch.cat([text.to(s.dtype), s], dim=1)  # [B, T + L, D]
        if mask is not None:
            keys = F.pad(mask != 0, (0, s.shape[1] - length), value=True)
            options["mask"] = keys[:, None, None]  # [B, 1, 1, T + L]
        (s,) = self.run_blocks(self.patch_blocks, (s,), t_emb, rope, slice(length, None), **options)
        return s[:, length:]

    def pixel_pathway(self, pixels: Tensor, s_cond: Tensor, size: Size, move: Move | None, **options: Any) -> Tensor:
        """From pixels [B*L, P, in_channels] and a condition per patch [B, L, D] to [B, H, W, out_channels]."""
        rope = self._rope(self.grid_positions(size, pixels.device), move)
        batch, s_cond = len(s_cond), s_cond.flatten(0, 1)
        z = self.pixel_embed(pixels)  # [B*L, P, C]
        for block in self.pixel_blocks:
            z = block(z, s_cond, batch, rope, **options)
        image = from_pixel_tokens(self.output_proj(self.output_norm(z)), *size, self.params.patch_size)
        return image.movedim(1, -1)

    def joint_rope(self, s: Tensor, text: Tensor | None, mask: Tensor | None, size: Size, move: Move | None) -> Rope:
        """Rotary table [1 or B, T + L, e/2, 2] of text and patches."""
        grid = self.grid_positions(size, s.device)
        length = 0 if text is None else text.shape[1]
        return self._rope(grid[None] if text is None else joint_positions(grid, length, mask), move, length)

    def grid_positions(self, size: Size, device: torch.device) -> Tensor:
        """Positions of the patches, int64 [L, 3]."""
        return self.tables(grid_positions, size, self.params.patch_size, device)

    def _rope(self, positions: Tensor, move: Move | None, text_length: int = 0) -> Rope:
        """Rotary table of positions [..., T + L, 3]; `move` moves the patches, which come after the text."""
        if move is not None:
            text, patches = positions[..., :text_length, :].float(), positions[..., text_length:, :].float()
            order, rows, columns = patches.unbind(-1)
            patches = torch.stack([order, *moved(rows, columns, move)], dim=-1)
            positions = torch.cat([text, patches], dim=-2)
        return mrope(positions, self.params.mrope_dims, self.params.mrope_theta)


def channels_first(x: Tensor, channels: int) -> Tensor:
    """An image of either layout as [B, channels, H, W]; the reference looks at the second axis first."""
    if x.shape[1] == channels:
        return x
    assert x.shape[-1] == channels, f"expected [B, H, W, {channels}] or [B, {channels}, H, W], not {list(x.shape)}"
    return x.movedim(-1, 1)


def grid_positions(size: Size, patch_size: int, device: torch.device) -> Tensor:
    """(0, row, column) of each patch, int64 [L, 3]."""
    rows, columns = (torch.arange(length // patch_size, device=device) for length in size)
    grid = torch.cartesian_prod(rows, columns)
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1)


def joint_positions(grid: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """Positions of [text, patches], int64 [1 or B, T + L, 3] (spec: pixelhdm, 3.3).

    Text tokens are counted from 0, padding included; patches start at the number of tokens that are no padding. So
    with padding on the left, as in training, some text tokens share the first coordinate with the patches.
    """
    text = torch.zeros(length, 3, dtype=torch.int64, device=grid.device)
    text[:, 0] = torch.arange(length, device=grid.device)
    if mask is None:
        mask = torch.ones(1, length, device=grid.device)
    patches = grid.repeat(len(mask), 1, 1)
    patches[:, :, 0] = (mask != 0).sum(dim=1)[:, None]
    return torch.cat([text.expand(len(mask), -1, -1), patches], dim=1)
