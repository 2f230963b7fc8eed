"""The x-prediction networks: DiT and PixelDiT, each also with registers for the class (spec: xpred, section 3).

They predict the clean image itself. The names of their parts are the reference's, for they are the keys of its files.
Legend: B batch, C channels, H x W image, p patch size, L patches, R registers, D width, P pixel width, e head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.attention import Attention, scaled_dot_product
from ...layers.blocks import PatchBlocks
from ...layers.embeddings import embed_classes
from ...layers.operations import Device, Operations
from ...layers.patchify import from_pixel_tokens, to_image, to_tokens
from ...layers.rope import Move, Rope, pad_identity, rope_grid
from ...layers.tables import KeptTables
from ...sizes import Size
from .layers import Block, FinalLayer, TimeMLP, add_positions
from .params import XPredParams
from .pixel_pathway import PixelBlock, PixelFinalLayer


class XPredNetwork(PatchBlocks, nn.Module):
    """What the four share: the embeddings of time and class, and the way through the patch blocks.

    `attention(q, k, v, **options)` takes [B, h, S, e] three times and gives [B, S, h*e].

    Raises:
        ValueError: `params` are of another of the four networks.
    """

    has_registers = False
    has_pixel_pathway = False

    def __init__(
        self, params: XPredParams, *, operations: Operations, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        expected = network_class(params)
        if (expected.has_registers, expected.has_pixel_pathway) != (self.has_registers, self.has_pixel_pathway):
            raise ValueError(
                f"num_registers {params.num_registers} and pixel_depth {params.pixel_depth} "
                f"make a {expected.__name__}, not a {type(self).__name__}."
            )
        self.params = params
        self.tables = KeptTables()
        rows, width = params.num_classes + 1, params.dim
        self.time_mlp = TimeMLP(width, operations=operations, device=device, dtype=dtype)
        if params.num_registers:
            self.class_registers = _table(rows, params.num_registers, width, device=device, dtype=dtype)
            self.register_pos_embed = _table(1, params.num_registers, width, device=device, dtype=dtype)
        else:
            self.class_embed = operations.Embedding(rows, width, device=device, dtype=dtype)

    def forward(
        self, x: Tensor, time: Tensor, labels: Tensor | None = None, *, move: Move | None = None, **options: Any
    ) -> Tensor:
        """Prediction of the clean image.

        Args:
            x: [B, C, H, W], in the network's dtype. Without a pixel pathway, H and W are multiples of patch_size; with
                one, multiples of compress_ratio and at least patch_size.
            time: [B] or a scalar, 0 = noise and 1 = image; kept in float32 for its features.
            labels: int64 [B], num_classes = the null class; or weights of the class table's rows, [B, num_classes + 1],
                to mix classes; None = the null class for all.
            move: moves the rows and columns of the patches, and of the pixel pathway's squares, before they are
                rotated; None = as trained.
            options: passed to the attention function.

        Returns:
            [B, C, H, W].
        """
        assert x.shape[1] == self.params.in_channels, f"{self.params.in_channels} channels, not {list(x.shape)}"
        if labels is None:
            labels = torch.full((len(x),), self.params.num_classes, device=x.device)
        t_emb = self.time_mlp(time.reshape(-1).expand(len(x)), x.dtype)  # [B, D]
        return self.predict(x, t_emb, labels, move, **options)

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, move: Move | None, **options: Any) -> Tensor:
        """The clean image [B, C, H, W], from a noisy one, its time [B, D] and its class [B]."""
        raise NotImplementedError

    def patch_pathway(
        self,
        patches: Tensor,
        table: Tensor | None,
        blocks: nn.ModuleList,
        t_emb: Tensor,
        labels: Tensor,
        move: Move | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """The patch blocks over embedded patches [B, D, H/p, W/p]: patches of that shape, and the condition [B, D].

        `table`: learned positions [1, g*g, D], or None.
        """
        grid, s = (patches.shape[2], patches.shape[3]), to_tokens(patches)
        if table is not None:
            s = add_positions(s, table, grid)  # [B, L, D]
        length = s.shape[1]
        rope = self.grid_rope(grid, s.device, move)
        class_emb, registers = self.embed_class(labels, s)
        c = t_emb + class_emb  # [B, D]
        if registers is not None:
            s, rope = torch.cat([s, registers], dim=1), pad_identity(rope, registers.shape[1])  # [B, L + R, D]
        (s,) = self.run_blocks(blocks, (s,), c, rope, slice(0, length), **options)
        return to_image(s[:, :length], *grid), c

    def grid_rope(self, grid: Size, device: torch.device, move: Move | None) -> Rope:
        """Rotary table of a grid of tokens."""
        size = (*grid, self.params.dim_head, device)
        return self.tables(rope_grid, *size) if move is None else rope_grid(*size, move=move)

    def embed_class(self, labels: Tensor, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a class adds to the condition [B, D], and its registers [B, R, D], if the network has them."""
        if not self.has_registers:
            return embed_classes(self.class_embed, labels).to(like), None  # ComfyUI may keep a table in another dtype
        table = self.class_registers.to(like)  # [V, R, D]
        chosen = torch.tensordot(labels.to(table), table, 1) if labels.is_floating_point() else table[labels]
        registers = chosen + self.register_pos_embed.to(like)
        return registers.mean(dim=1), registers


class XPredDiT(XPredNetwork):
    """A transformer over patches, conditioned by time and class."""

    def __init__(
        self,
        params: XPredParams,
        *,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, operations=operations, device=device, dtype=dtype)
        factory_kwargs: dict[str, Any] = {"operations": operations, "device": device, "dtype": dtype}
        p, table = params.patch_size, (1, params.grid**2, params.dim)
        patches = operations.Conv2d(params.in_channels, params.dim, p, stride=p, device=device, dtype=dtype)
        self.to_patch_embedding = nn.Sequential(patches)
        self.pos_embedding = _table(*table, device=device, dtype=dtype) if params.use_abs_pe else None
        self.blocks = nn.ModuleList(Block(params, attention=attention, **factory_kwargs) for _ in range(params.depth))
        self.final_layer = FinalLayer(params.dim, params.in_channels * p**2, **factory_kwargs)

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, move: Move | None, **options: Any) -> Tensor:
        patches = self.to_patch_embedding(x)  # [B, D, H/p, W/p]
        patches, c = self.patch_pathway(patches, self.pos_embedding, self.blocks, t_emb, labels, move, **options)
        values = self.final_layer(to_tokens(patches), c)  # [B, L, p*p*C], channels fastest
        pixels = values.unflatten(-1, (-1, x.shape[1])).flatten(0, 1)
        return from_pixel_tokens(pixels, x.shape[2], x.shape[3], self.params.patch_size)


class XPredMMDiT(XPredDiT):
    """A DiT whose class is registers: tokens after the patches, and their mean in the condition."""

    has_registers = True


class XPredPixelDiT(XPredNetwork):
    """A DiT without its head, and a pixel pathway conditioned on the patches that it returns."""

    has_pixel_pathway = True

    def __init__(
        self,
        params: XPredParams,
        *,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, operations=operations, device=device, dtype=dtype)
        tensor_kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        factory_kwargs: dict[str, Any] = {"operations": operations, **tensor_kwargs}
        channels, width, pixel_width, p = params.in_channels, params.dim, params.pixel_dim, params.patch_size
        self.to_semantic_patch = nn.Sequential(operations.Conv2d(channels, width, p, stride=p, **tensor_kwargs))
        self.to_pixel_patch = nn.Sequential(operations.Conv2d(channels, pixel_width, 1, **tensor_kwargs))
        self.semantic_pos_embedding = self.pixel_pos_embedding = None
        if params.use_abs_pe:
            self.semantic_pos_embedding = _table(1, params.grid**2, width, **tensor_kwargs)
            self.pixel_pos_embedding = _table(1, params.image_size**2, pixel_width, **tensor_kwargs)
        self.dit_blocks = nn.ModuleList(
            Block(params, attention=attention, **factory_kwargs) for _ in range(params.depth)
        )
        self.up_conv = operations.Conv2d(width, width, 3, padding=1, **tensor_kwargs)
        self.pit_blocks = nn.ModuleList(
            PixelBlock(params, attention=attention, **factory_kwargs) for _ in range(params.pixel_depth)
        )
        self.final_layer = PixelFinalLayer(params, **factory_kwargs)

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, move: Move | None, **options: Any) -> Tensor:
        table, size = self.semantic_pos_embedding, (x.shape[2], x.shape[3])
        patches = self.to_semantic_patch(x)  # [B, D, H/p, W/p], rounded down
        patches, _ = self.patch_pathway(patches, table, self.dit_blocks, t_emb, labels, move, **options)
        # time and class reach pixels only through patches
        image = F.interpolate(patches, size, mode="bilinear", align_corners=False)
        z = to_tokens(self.up_conv(image)).contiguous()  # [B, H*W, D], which every block reads
        return self.pixel_pathway(x, z, size, move, **options)

    def pixel_pathway(self, x: Tensor, z: Tensor, size: Size, move: Move | None, **options: Any) -> Tensor:
        """From a noisy image [B, C, H, W] and a condition for each pixel [B, H*W, D] to the clean image."""
        ratio = self.params.compress_ratio
        rope = self.grid_rope((size[0] // ratio, size[1] // ratio), x.device, move)
        pixels = to_tokens(self.to_pixel_patch(x))  # [B, H*W, P]
        if self.pixel_pos_embedding is not None:
            pixels = add_positions(pixels, self.pixel_pos_embedding, size)
        for block in self.pit_blocks:
            pixels = block(pixels, z, size, rope, **options)
        return to_image(self.final_layer(pixels, z), *size)


class XPredMMPixelDiT(XPredPixelDiT):
    """A PixelDiT with registers for the class, whose pixel blocks, too, may normalize queries and keys."""

    has_registers = True


NETWORKS: dict[tuple[bool, bool], type[XPredNetwork]] = {
    (network.has_registers, network.has_pixel_pathway): network
    for network in (XPredDiT, XPredMMDiT, XPredPixelDiT, XPredMMPixelDiT)
}


def network_class(params: XPredParams) -> type[XPredNetwork]:
    """Which of the four networks has these sizes."""
    return NETWORKS[params.num_registers > 0, params.pixel_depth > 0]


def _table(*shape: int, device: Device, dtype: torch.dtype | None) -> nn.Parameter:
    """A table that a checkpoint fills."""
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
