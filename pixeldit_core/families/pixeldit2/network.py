"""PixelDiT2, class-conditional (arXiv 2609.24919; spec: pixeldit2, section 2).

Legend: B batch, C channels, H x W image, p patch size, L patches, K context tokens, D width, e head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention, scaled_dot_product
from ...layers.blocks import PatchBlocks
from ...layers.embeddings import LabelEmbedder, LinearEmbedder, TimestepEmbedder
from ...layers.operations import Device, Operations
from ...layers.patchify import from_pixel_tokens, to_patch_tokens
from ...layers.rope import Move, Rope, pad_identity, rope_2d
from ...layers.tables import KeptTables
from .conditioner import Conditioner
from .layers import Block, FinalLayer
from .params import PixelDiT2Params


class PixelDiT2(PatchBlocks, nn.Module):
    """Predicts the image of a noisy image, from its time, its class, and what a frozen encoder sees in it.

    `attention(q, k, v, **options)` takes [B, h, S, e] three times and gives [B, S, h*e].
    """

    def __init__(
        self,
        params: PixelDiT2Params,
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
        width, values = params.hidden_size, params.in_channels * params.patch_size**2
        self.in_context_posemb: nn.Parameter | None = None
        if params.in_context_len:
            table = torch.empty(1, params.in_context_len, width, device=device, dtype=dtype)
            self.in_context_posemb = nn.Parameter(table)
        self.t_embedder = TimestepEmbedder(width, **factory_kwargs)
        self.y_embedder = LabelEmbedder(params.num_classes, width, **factory_kwargs)
        self.s_embedder = LinearEmbedder(values, width, **factory_kwargs)
        self.patch_blocks = nn.ModuleList(
            Block(width, params.num_heads, params.mlp_width, attention=attention, **factory_kwargs)
            for _ in range(params.depth)
        )
        self.final_layer = FinalLayer(width, values, **factory_kwargs)
        self.dino_conditioner = Conditioner(params, attention=attention, **factory_kwargs)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        label: Tensor,
        skip: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        move: Move | None = None,
        **options: Any,
    ) -> Tensor:
        """Prediction of the clean image.

        Args:
            x: [B, 3, H, W], the noisy image in the network's dtype, not clamped; H and W multiples of the patch size.
            time: [B] or a scalar, 0 = noise and 1 = image; kept in float32 for its features.
            label: int64 [B] in 0..num_classes, the last being the null class; or weights of the class table's rows,
                [B, num_classes + 1], to mix classes.
            skip: bool [B], rows that are not grounded; None = exactly those of the null class.
            rows: int64 [R], the others by number, in place of `skip`; so no operation's shape depends on values, and
                one compiled graph has the whole call.
            move: moves the rows and columns of the patches before they are rotated; None = as trained.
            options: passed to the attention function.

        Returns:
            [B, 3, H, W].

        Raises:
            ValueError: a row is grounded, and the network has no encoder.
        """
        time = time.reshape(-1).expand(len(x))
        y_emb = self.y_embedder(label, x.dtype)  # [B, D]
        c = (self.t_embedder(time, x.dtype) + y_emb)[:, None]  # [B, 1, D]
        if rows is None:
            rows = grounded_rows(self.params.num_classes, label, skip).to(x.device)  # from the CPU, nothing waits
        c = self.ground(c, x, time, rows, move, **options)
        if not self.params.single_silu_cond:
            c = F.silu(c)  # and once more in each block: so it was trained
        s = self.patch_pathway(x, c, y_emb, move, **options)
        values = self.final_layer(s, c)  # [B, L, p*p*C], channels fastest
        pixels = values.unflatten(-1, (-1, x.shape[1])).flatten(0, 1)
        return from_pixel_tokens(pixels, x.shape[2], x.shape[3], self.params.patch_size)

    def ground(self, c: Tensor, x: Tensor, time: Tensor, rows: Tensor, move: Move | None, **options: Any) -> Tensor:
        """The condition [B, 1, D] plus the grounding of these rows, int64 [R]: [B, L, D], or [B, 1, D] without any.

        The encoder sees no other rows.
        """
        if not len(rows):
            return c
        rope = self.grid_rope(x, self.params.proj_heads, move)
        if not torch.compiler.is_compiling() and len(rows) == len(x):  # compared, it would be a graph of its own
            return self.dino_conditioner(x, time, rope, **options) + c
        grounding = self.dino_conditioner(x[rows], time[rows], rope, **options)  # [R, L, D]
        return c.expand(-1, grounding.shape[1], -1).index_copy(0, rows, grounding + c[rows])

    def patch_pathway(self, x: Tensor, c: Tensor, y_emb: Tensor, move: Move | None, **options: Any) -> Tensor:
        """The patch blocks, the later ones with context tokens of the class in front: patches [B, L, D]."""
        params, count = self.params, self.params.in_context_len
        s = self.s_embedder(to_patch_tokens(x, params.patch_size))  # [B, L, D]
        rope = self.grid_rope(x, params.num_heads, move)
        if self.in_context_posemb is None:
            (s,) = self.run_blocks(self.patch_blocks, (s,), c, rope, slice(None), **options)
            return s
        start = params.in_context_start
        if start:
            (s,) = self.run_blocks(self.patch_blocks, (s,), c, rope, slice(None), part=slice(start), **options)
        context = y_emb[:, None] + self.in_context_posemb.to(s)
        s, rope = torch.cat([context, s], dim=1), pad_identity(rope, before=count)  # [B, K + L, D]
        if c.shape[1] > 1:
            c = torch.cat([c.mean(dim=1, keepdim=True).expand(-1, count, -1), c], dim=1)
        (s,) = self.run_blocks(self.patch_blocks, (s,), c, rope, slice(count, None), part=slice(start, None), **options)
        return s[:, count:]

    def grid_rope(self, x: Tensor, num_heads: int, move: Move | None) -> Rope:
        """Rotary table of the grid of patches of an image [B, C, H, W], for blocks of `num_heads`."""
        p = self.params.patch_size
        size = (x.shape[2] // p, x.shape[3] // p, self.params.hidden_size // num_heads, x.device)
        return self.tables(rope_2d, *size) if move is None else rope_2d(*size, move=move)


def grounded_rows(num_classes: int, label: Tensor, skip: Tensor | None = None) -> Tensor:
    """Rows that the encoder sees, int64 [R], of what `PixelDiT2` is called with."""
    if skip is None and label.is_floating_point():  # weights: without any other class than the null class
        skip = (label[:, :num_classes] == 0).all(dim=1)
    elif skip is None:
        skip = label == num_classes
    return (~skip).nonzero().flatten()
