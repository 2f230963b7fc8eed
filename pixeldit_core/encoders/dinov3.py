"""DINOv3, a frozen vision transformer (spec: pixeldit2, section 3). The names of its parts are timm's.

Legend: B batch, H x W image, L patches, S tokens (class, registers, then patches), E width, h heads, e head size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers.attention import LAYER_NORM_EPS, Attention, scaled_dot_product
from ..layers.mlp import GeluMLP
from ..layers.operations import Device, Operations
from ..layers.patchify import to_tokens
from ..layers.rope import Rope, from_angles, pad_identity

PATCH_SIZE = 16
NUM_REGISTERS = 4
NUM_PREFIX = 1 + NUM_REGISTERS  # tokens before the patches
HEAD_DIM = 64  #                  of all published encoders
ROPE_THETA = 100.0
IMAGE_MEAN = (0.485, 0.456, 0.406)  # of its input, for pixels in [0, 1]
IMAGE_STD = (0.229, 0.224, 0.225)


class Published(NamedTuple):
    """A published encoder (LVD-1689M weights), and where its file is."""

    name: str
    depth: int
    repository: str


PUBLISHED = {
    384: Published("DINOv3 ViT-S/16", 12, "timm/vit_small_patch16_dinov3_qkvb.lvd1689m"),
    768: Published("DINOv3 ViT-B/16", 12, "timm/vit_base_patch16_dinov3_qkvb.lvd1689m"),
    1024: Published("DINOv3 ViT-L/16", 24, "timm/vit_large_patch16_dinov3_qkvb.lvd1689m"),
}  # by width


def guess_heads(width: int) -> int:
    """Heads of an encoder, which its shapes do not determine: those of the published ones."""
    return max(1, width // HEAD_DIM)


def exact_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """What an encoder is kept and computed in beside a network of this dtype.

    Values beyond what float16 holds run through it, and float8 is too coarse for it.
    """
    if dtype is None or dtype in (torch.bfloat16, torch.float32, torch.float64):
        return dtype
    return torch.float32 if dtype == torch.float16 else torch.bfloat16


def rope_periods(head_dim: int, device: Device = None) -> Tensor:
    """float32 [e/4], from 1 up to almost 100. Meta's files have them rounded to bfloat16: those are not used."""
    index = torch.arange(head_dim // 4, dtype=torch.float32, device=device)
    return ROPE_THETA ** (4 * index / head_dim)


def centered_rope(height: int, width: int, head_dim: int, device: Device = None) -> Rope:
    """Rotary table of a grid of height*width patches, row-major: all angles of the row, then of the column.

    Each axis has its own length: from almost -1 to almost 1, at the middle of the patches.
    """
    periods = rope_periods(head_dim, device)

    def axis(length: int) -> Tensor:
        middle = (torch.arange(length, dtype=torch.float32, device=device) + 0.5) / length
        return 2 * math.pi * (2 * middle - 1)[:, None] / periods  # [length, e/4]

    size = (height, width, head_dim // 4)
    return from_angles(
        torch.cat([axis(height)[:, None].expand(size), axis(width)[None].expand(size)], dim=-1).flatten(0, 1)
    )


def rotate_halves(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the channel pairs (j, j + e/2) of [B, S, h, e] by a table; in float32, returned in x's dtype."""
    cos, sin = rope[:, None].unbind(-1)
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class EncoderAttention(nn.Module):
    """Self-attention [B, S, E] -> [B, S, E]; queries and values have biases, keys have none."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        attention: Attention,
        operations: Operations,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention = attention
        self.q_bias = _parameter(width, device=device, dtype=dtype)
        self.v_bias = _parameter(width, device=device, dtype=dtype)
        self.qkv = operations.Linear(width, 3 * width, bias=False, device=device, dtype=dtype)
        self.proj = operations.Linear(width, width, device=device, dtype=dtype)

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, v = q + self.q_bias.to(x), v + self.v_bias.to(x)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in (q, k, v))  # [B, S, h, e]
        q, k = rotate_halves(q, rope), rotate_halves(k, rope)
        return self.proj(self.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options))


class EncoderBlock(nn.Module):
    """A block over tokens [B, S, E], each branch scaled by a learned vector."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        attention: Attention,
        operations: Operations,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        tensor_kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        self.gamma_1 = _parameter(width, **tensor_kwargs)
        self.gamma_2 = _parameter(width, **tensor_kwargs)
        self.norm1 = operations.LayerNorm(width, eps=LAYER_NORM_EPS, **tensor_kwargs)
        self.attn = EncoderAttention(width, num_heads, attention=attention, operations=operations, **tensor_kwargs)
        self.norm2 = operations.LayerNorm(width, eps=LAYER_NORM_EPS, **tensor_kwargs)
        self.mlp = GeluMLP(width, operations=operations, **tensor_kwargs)

    def forward(self, x: Tensor, rope: Rope, **options: Any) -> Tensor:
        x = torch.addcmul(x, self.gamma_1.to(x), self.attn(self.norm1(x), rope, **options))
        return torch.addcmul(x, self.gamma_2.to(x), self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Images [B, 3, H, W] -> patches [B, L, E]."""

    def __init__(self, width: int, *, operations: Operations, **factory_kwargs: Any) -> None:
        super().__init__()
        self.proj = operations.Conv2d(3, width, PATCH_SIZE, stride=PATCH_SIZE, **factory_kwargs)

    def forward(self, image: Tensor) -> Tensor:
        return to_tokens(self.proj(image))


class DINOv3(nn.Module):
    """Images -> one feature vector for each patch of 16 x 16 pixels; always in evaluation mode.

    `attention(q, k, v, **options)` takes [B, h, S, e] three times and gives [B, S, h*e].
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        attention: Attention = scaled_dot_product,
        operations: Operations = nn,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        tensor_kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        factory_kwargs: dict[str, Any] = {"attention": attention, "operations": operations, **tensor_kwargs}
        self.width, self.head_dim = width, width // num_heads
        self.cls_token = _parameter(1, 1, width, **tensor_kwargs)
        self.reg_token = _parameter(1, NUM_REGISTERS, width, **tensor_kwargs)
        self.patch_embed = PatchEmbedding(width, operations=operations, **tensor_kwargs)
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads, **factory_kwargs) for _ in range(depth))
        self.norm = operations.LayerNorm(width, eps=LAYER_NORM_EPS, **tensor_kwargs)

    def forward(self, image: Tensor, **options: Any) -> Tensor:
        """Features of the patches.

        Args:
            image: [B, 3, H, W], normalized with IMAGE_MEAN and IMAGE_STD, in the encoder's dtype; H and W multiples
                of 16.
            options: passed to the attention function.

        Returns:
            [B, L, E], row-major.
        """
        patches = self.patch_embed(image)
        grid = (image.shape[2] // PATCH_SIZE, image.shape[3] // PATCH_SIZE)
        rope = pad_identity(centered_rope(*grid, self.head_dim, image.device), before=NUM_PREFIX)
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1).to(patches).expand(len(image), -1, -1)
        x = torch.cat([prefix, patches], dim=1)  # [B, S, E]
        for block in self.blocks:
            x = block(x, rope, **options)
        return self.norm(x)[:, NUM_PREFIX:]


def _parameter(*shape: int, device: Device, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter that a checkpoint fills."""
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
