"""The class-conditional PixelDiT (arXiv 2511.20645, section 3; spec: official, section 2).

Legend: B batch, L patches, P = p*p pixels per patch, D width, C pixel width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import (
    EPS,
    Attention,
    LabelEmbedder,
    LinearEmbedder,
    Rope,
    SelfAttention,
    SwiGLU,
    TimestepEmbedder,
    modulate,
    scaled_dot_product,
    swiglu_size,
)
from .pixel_path import FinalLayer, PixelBlock, embed_pixels, from_pixel_tokens
from .positions import rope_2d


@dataclass(frozen=True)
class PixelDiTParams:
    """Sizes of a class-conditional PixelDiT; names are the official constructor's.

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
    mlp_hidden_size: int | None = None  #      of the SwiGLU; None = the published rule
    pixel_attn_hidden_size: int | None = None  # width of the compacted attention; None = hidden_size
    pixel_num_groups: int | None = None  #     its heads; None = num_groups
    use_pixel_abs_pos: bool = True
    pit_adaln_post_modulation: bool = False
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for width, heads, what in (
            (self.hidden_size, self.num_groups, "hidden_size"),
            (self.attention_width, self.attention_heads, "pixel_attn_hidden_size"),
        ):
            if heads < 1 or width % heads or (width // heads) % 4:
                raise ValueError(
                    f"{what} {width} does not divide into {heads} heads of a multiple of 4 channels; "
                    "the rotary positions need that."
                )
        if self.pixel_hidden_size % 4:
            raise ValueError(f"pixel_hidden_size is {self.pixel_hidden_size}; it must be a multiple of 4.")
        if self.pixel_depth < 1:
            raise ValueError(f"pixel_depth is {self.pixel_depth}; a PixelDiT has at least one pixel block.")

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_size or swiglu_size(self.hidden_size)

    @property
    def attention_width(self) -> int:
        return self.pixel_attn_hidden_size or self.hidden_size

    @property
    def attention_heads(self) -> int:
        return self.pixel_num_groups or self.num_groups


class PatchBlock(nn.Module):
    """A DiT block over patches with adaLN; the silu of the condition was applied once, outside."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        attention: Attention,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.RMSNorm(width, eps=EPS, **factory)
        self.attn = SelfAttention(width, num_heads, attention=attention, operations=operations, **factory)
        self.norm2 = operations.RMSNorm(width, eps=EPS, **factory)
        self.mlp = SwiGLU(width, hidden, operations=operations, **factory)
        self.adaLN_modulation = nn.Sequential(operations.Linear(width, 6 * width, **factory))

    def forward(self, s: Tensor, c: Tensor, rope: Rope, **options: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)  # each [B, 1, D]
        s = torch.addcmul(s, gate1, self.attn(modulate(self.norm1(s), shift1, scale1), rope, **options))
        return torch.addcmul(s, gate2, self.mlp(modulate(self.norm2(s), shift2, scale2)))


class PixelDiT(nn.Module):
    """Predicts the velocity `image - noise` of a noisy image, from its time and class.

    `attention(q, k, v, **options)` takes [B, h, L, e] three times and gives [B, L, h*e].
    """

    def __init__(
        self,
        params: PixelDiTParams,
        *,
        operations: Any = nn,
        attention: Attention = scaled_dot_product,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.params = params
        p, width, pixel_width = params.patch_size, params.hidden_size, params.pixel_hidden_size
        kit = {"operations": operations, "device": device, "dtype": dtype}
        self.pixel_embedder = LinearEmbedder(params.in_channels, pixel_width, **kit)
        self.s_embedder = LinearEmbedder(params.in_channels * p * p, width, **kit)
        self.t_embedder = TimestepEmbedder(width, **kit)
        self.y_embedder = LabelEmbedder(params.num_classes, width, **kit)
        self.patch_blocks = nn.ModuleList(
            PatchBlock(width, params.num_groups, params.mlp_width, attention=attention, **kit)
            for _ in range(params.patch_depth)
        )
        self.pixel_blocks = nn.ModuleList(
            PixelBlock(
                width,
                pixel_width,
                p * p,
                params.attention_width,
                params.attention_heads,
                post_modulation=params.pit_adaln_post_modulation,
                attention=attention,
                **kit,
            )
            for _ in range(params.pixel_depth)
        )
        self.final_layer = FinalLayer(pixel_width, params.in_channels, **kit)

    def forward(self, x: Tensor, time: Tensor, label: Tensor, **options: Any) -> Tensor:
        """Velocity of `x`.

        Args:
            x: [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch size.
            time: [B], 0 = noise, 1 = image; kept in float32 for its features.
            label: [B] int64 in 0..num_classes, the last being no class.
            options: handed to the attention function.

        Returns:
            [B, in_channels, H, W].
        """
        params, p = self.params, self.params.patch_size
        batch, _, height, width = x.shape
        rows, columns = height // p, width // p
        rope = rope_2d(rows, columns, params.hidden_size // params.num_groups, x.device)

        patches = F.unfold(x, p, stride=p).transpose(1, 2)  # [B, L, 3P], channel-major
        s = self.s_embedder(patches)  # [B, L, D]
        t_emb = self.t_embedder(time, x.dtype)[:, None]  # [B, 1, D]
        c = F.silu(t_emb + self.y_embedder(label, x.dtype)[:, None])  # [B, 1, D]
        for block in self.patch_blocks:
            s = block(s, c, rope, **options)  # [B, L, D]

        s_cond = F.silu(t_emb + s).flatten(0, 1)  # [B*L, D]
        rope = rope_2d(rows, columns, params.attention_width // params.attention_heads, x.device)
        z = embed_pixels(self.pixel_embedder, x, p, params.use_pixel_abs_pos)  # [B*L, P, C]
        for block in self.pixel_blocks:
            z = block(z, s_cond, batch, rope, **options)  # [B*L, P, C]
        return from_pixel_tokens(self.final_layer(z), height, width, p)
