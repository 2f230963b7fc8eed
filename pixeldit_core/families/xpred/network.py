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
from ...layers.patchify import from_pixel_tokens
from ...layers.rope import Rope, rope_grid
from .layers import Block, FinalLayer, TimeMLP, add_positions, to_image, to_tokens
from .params import XPredParams, guess_image_size, inner_width, params_from
from .pixel_pathway import PixelBlock, PixelFinalLayer

__all__ = [
    "NETWORKS",
    "XPredDiT",
    "XPredMMDiT",
    "XPredMMPixelDiT",
    "XPredParams",
    "XPredPixelDiT",
    "guess_image_size",
    "inner_width",
    "network_class",
    "params_from",
]


class XPredNetwork(nn.Module):
    """What the four share: patches, condition and the blocks over them, under the names of each.

    `attention(q, k, v, **options)` takes [B, h, S, e] three times and gives [B, S, h*e].

    Raises:
        ValueError: `params` are of another of the four networks.
    """

    registers = False
    pixels = False
    table = "pos_embedding"
    patches = "to_patch_embedding"
    stack = "blocks"

    def __init__(
        self,
        params: XPredParams,
        *,
        operations: Any = nn,
        attention: Attention = scaled_dot_product,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        needed = network_class(params)
        if (needed.registers, needed.pixels) != (self.registers, self.pixels):
            raise ValueError(
                f"num_registers {params.num_registers} and pixel_depth {params.pixel_depth} "
                f"make a {needed.__name__}, not a {type(self).__name__}."
            )
        self.params = params
        factory = {"operations": operations, "device": device, "dtype": dtype}
        self.add_tables(device=device, dtype=dtype)
        self.add_patch_path(attention=attention, **factory)
        self.add_head(attention=attention, **factory)

    def add_tables(self, **factory: Any) -> None:
        params = self.params
        if params.use_abs_pe:
            self.register_parameter(self.table, empty(1, params.grid**2, params.dim, **factory))
        if params.num_registers:
            self.class_registers = empty(params.num_classes + 1, params.num_registers, params.dim, **factory)
            self.register_pos_embed = empty(1, params.num_registers, params.dim, **factory)

    def add_patch_path(self, *, attention: Attention, operations: Any, **factory: Any) -> None:
        params, p = self.params, self.params.patch_size
        kit = {"operations": operations, **factory}
        patches = operations.Conv2d(params.in_channels, params.dim, p, stride=p, **factory)
        self.add_module(self.patches, nn.Sequential(patches))
        self.time_mlp = TimeMLP(params.dim, **kit)
        if not params.num_registers:
            self.class_embed = operations.Embedding(params.num_classes + 1, params.dim, **factory)
        blocks = (Block(params, attention=attention, **kit) for _ in range(params.depth))
        self.add_module(self.stack, nn.ModuleList(blocks))

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        """Prediction of the clean image.

        Args:
            x: [B, C, H, W], in the network's dtype. Without a pixel path, H and W are multiples of patch_size; with
                one, multiples of compress_ratio and at least patch_size.
            time: [B] or a scalar, 0 = noise and 1 = image; kept in float32 for its features.
            labels: int64 [B], num_classes = no class; None = no class for all.
            options: handed to the attention function.

        Returns:
            [B, C, H, W].

        Raises:
            ValueError: a shape that does not fit.
        """
        check_image(x, self.params)
        if labels is None:
            labels = torch.full((len(x),), self.params.num_classes, device=x.device)
        t_emb = self.time_mlp(time.reshape(-1).expand(len(x)), x.dtype)  # [B, D]
        return self.predict(x, t_emb, labels, **options)

    def add_head(self, *, attention: Attention, operations: Any, **factory: Any) -> None:
        """What comes behind the patch path."""
        raise NotImplementedError

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """The clean image [B, C, H, W], from a noisy one, its time [B, D] and its class."""
        raise NotImplementedError

    def understand(self, x: Tensor, t_emb: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """The patch path: patches as an image [B, D, H/p, W/p], rounded down, and the condition [B, D]."""
        image = getattr(self, self.patches)(x)  # [B, D, H/p, W/p]
        grid, s = tuple(image.shape[2:]), to_tokens(image)
        if self.params.use_abs_pe:
            s = add_positions(s, getattr(self, self.table), grid)  # [B, L, D]
        length = s.shape[1]
        rope = rope_grid(*grid, self.params.dim_head, x.device)
        known, registers = self.embed_class(labels, x)
        c = t_emb + known  # [B, D]
        if registers is not None:
            s, rope = torch.cat([s, registers], dim=1), standing(rope, registers.shape[1])  # [B, L + R, D]
        for block in getattr(self, self.stack):
            s = block(s, c, rope, **options)
        return to_image(s[:, :length], grid), c

    def embed_class(self, labels: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a class adds to the condition [B, D], and its registers [B, R, D], if the network has them."""
        if not self.params.num_registers:
            return self.class_embed(labels).to(x), None  # a host may keep a table in another dtype
        registers = self.class_registers.to(x)[labels] + self.register_pos_embed.to(x)
        return registers.mean(dim=1), registers


class XPredDiT(XPredNetwork):
    """A transformer over patches, conditioned by time and class."""

    def add_head(self, *, attention: Attention, **kit: Any) -> None:
        params = self.params
        self.final_layer = FinalLayer(params.dim, params.in_channels * params.patch_size**2, **kit)

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, **options: Any) -> Tensor:
        image, c = self.understand(x, t_emb, labels, **options)
        patches = self.final_layer(to_tokens(image), c)  # [B, L, p*p*C], channels fastest
        pixels = patches.unflatten(-1, (-1, x.shape[1])).flatten(0, 1)
        return from_pixel_tokens(pixels, *x.shape[2:], self.params.patch_size)


class XPredMMDiT(XPredDiT):
    """A DiT whose class is registers: tokens behind the patches, and their mean in the condition."""

    registers = True


class XPredPixelDiT(XPredNetwork):
    """A DiT without its head, and a pixel path that paints from what becomes of the patches."""

    pixels = True
    table = "semantic_pos_embedding"
    patches = "to_semantic_patch"
    stack = "dit_blocks"

    def add_tables(self, **factory: Any) -> None:
        super().add_tables(**factory)
        if self.params.use_abs_pe:
            self.pixel_pos_embedding = empty(1, self.params.image_size**2, self.params.pixel_dim, **factory)

    def add_head(self, *, attention: Attention, operations: Any, **factory: Any) -> None:
        params = self.params
        kit = {"operations": operations, **factory}
        self.to_pixel_patch = nn.Sequential(operations.Conv2d(params.in_channels, params.pixel_dim, 1, **factory))
        self.up_conv = operations.Conv2d(params.dim, params.dim, 3, padding=1, **factory)
        self.pit_blocks = nn.ModuleList(
            PixelBlock(params, attention=attention, **kit) for _ in range(params.pixel_depth)
        )
        self.final_layer = PixelFinalLayer(params, **kit)

    def predict(self, x: Tensor, t_emb: Tensor, labels: Tensor, **options: Any) -> Tensor:
        image, _ = self.understand(x, t_emb, labels, **options)  # time and class reach pixels only through patches
        image = F.interpolate(image, tuple(x.shape[2:]), mode="bilinear", align_corners=False)
        z = to_tokens(self.up_conv(image)).contiguous()  # [B, H*W, D], which every block reads
        return self.paint(x, z, **options)

    def paint(self, x: Tensor, z: Tensor, **options: Any) -> Tensor:
        """The pixel path, from a noisy image [B, C, H, W] and a condition for each pixel to the clean image."""
        size, ratio = tuple(x.shape[2:]), self.params.compress_ratio
        rope = rope_grid(size[0] // ratio, size[1] // ratio, self.params.dim_head, x.device)
        pixels = to_tokens(self.to_pixel_patch(x))  # [B, H*W, P]
        if self.params.use_abs_pe:
            pixels = add_positions(pixels, self.pixel_pos_embedding, size)
        for block in self.pit_blocks:
            pixels = block(pixels, z, size, rope, **options)
        return to_image(self.final_layer(pixels, z), size)


class XPredMMPixelDiT(XPredPixelDiT):
    """A PixelDiT with registers for the class, whose pixel blocks, too, normalize queries and keys if told."""

    registers = True


NETWORKS = {
    (network.registers, network.pixels): network for network in (XPredDiT, XPredMMDiT, XPredPixelDiT, XPredMMPixelDiT)
}


def network_class(params: XPredParams) -> type[XPredNetwork]:
    """Which of the four networks has these sizes."""
    return NETWORKS[params.num_registers > 0, params.pixel_depth > 0]


def empty(*shape: int, **factory: Any) -> nn.Parameter:
    """A table that a checkpoint fills."""
    return nn.Parameter(torch.empty(shape, **factory))


def standing(rope: Rope, count: int) -> Rope:
    """Rotary tables [L, e/2] with `count` tokens more, which do not turn."""
    cos, sin = rope
    return F.pad(cos, (0, 0, 0, count), value=1.0), F.pad(sin, (0, 0, 0, count))


def check_image(x: Tensor, params: XPredParams) -> None:
    """Raises ValueError unless x is [B, C, H, W] of a size that the network can take."""
    if x.ndim != 4 or x.shape[1] != params.in_channels:
        raise ValueError(f"the image has shape {list(x.shape)}; expected [B, {params.in_channels}, H, W].")
    step = params.compress_ratio if params.pixel_depth else params.patch_size
    least = -(-params.patch_size // step) * step  # one patch, for patches that make no whole are left out
    for what, length in zip(("height", "width"), x.shape[2:], strict=True):
        if length < least or length % step:
            near = max(least, round(length / step) * step)
            raise ValueError(
                f"the image's {what} is {length}; it must be a multiple of {step} and at least {least}, such as {near}."
            )
