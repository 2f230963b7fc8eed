"""The text-to-image PixelDiT (arXiv 2511.20645, section 3; spec: official, section 3).

Patches and text tokens attend to each other in every patch block, each with weights of their own (MM-DiT); the
pixel-level pathway is the class-conditional network's, with an attention of its own width.
Legend: B batch, L patches, T text tokens, D width, h heads, e head size, C pixel width, P pixels per patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.adaln import EPS, norm_modulate
from ...layers.attention import Attention, rotated_heads, scaled_dot_product
from ...layers.mlp import SwiGLU, swiglu_size
from ...layers.rope import Rope, rope_1d
from ..normalization import expand_normalization
from .dual_path import DualPath, check_heads, check_pixel_path


@dataclass(frozen=True)
class PixelDiTT2IParams:
    """Sizes of a text-to-image PixelDiT; names are the official constructor's.

    Raises:
        ValueError: sizes that no network can have.
    """

    hidden_size: int  #                        D, width of the patch pathway
    num_groups: int  #                         attention heads of the patch pathway
    patch_depth: int  #                        joint blocks
    pixel_depth: int  #                        pixel blocks
    pixel_attn_hidden_size: int  #             width of the compacted attention
    pixel_num_groups: int  #                   its heads
    patch_size: int = 16
    pixel_hidden_size: int = 16
    in_channels: int = 3
    txt_embed_dim: int = 2304  #               width of the text encoder's states
    txt_max_length: int = 300  #               text tokens beyond these are cut
    mlp_hidden_size: int | None = None  #      of the SwiGLU; None = the published rule
    use_text_rope: bool = True
    text_rope_theta: float = 10000.0
    use_pixel_abs_pos: bool = True
    pit_adaln_post_modulation: bool = False
    image_mean: tuple[float, ...] = (0.5,)  #  of each channel, or one for all
    image_std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_groups, "hidden_size")
        check_heads(self.attention_width, self.attention_heads, "pixel_attn_hidden_size")
        check_pixel_path(self.pixel_hidden_size, self.pixel_depth)
        expand_normalization(self)

    @property
    def mlp_width(self) -> int:
        return self.mlp_hidden_size or swiglu_size(self.hidden_size)

    @property
    def attention_width(self) -> int:
        return self.pixel_attn_hidden_size

    @property
    def attention_heads(self) -> int:
        return self.pixel_num_groups


class TextEmbedder(nn.Module):
    """States of the text encoder [B, T, txt_embed_dim] -> [B, T, D]; its norm is the only one the text gets."""

    def __init__(self, text_width: int, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(text_width, width, **factory)
        self.norm = operations.RMSNorm(width, eps=EPS, **factory)

    def forward(self, text: Tensor) -> Tensor:
        return self.norm(self.proj(text))


class JointAttention(nn.Module):
    """One softmax over [text, patches], with projections and norms of their own: -> results for (patches, text)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        updates_text: bool = True,
        attention: Attention = scaled_dot_product,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.updates_text = updates_text
        self.attention = attention
        head = width // num_heads
        for stream in ("x", "y"):
            setattr(self, f"qkv_{stream}", operations.Linear(width, 3 * width, bias=False, **factory))
            setattr(self, f"q_norm_{stream}", operations.RMSNorm(head, eps=EPS, **factory))
            setattr(self, f"k_norm_{stream}", operations.RMSNorm(head, eps=EPS, **factory))
            setattr(self, f"proj_{stream}", operations.Linear(width, width, **factory))

    def forward(
        self, s: Tensor, y: Tensor, rope: Rope, text_rope: Rope | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        patches = rotated_heads(s, self.qkv_x, self.q_norm_x, self.k_norm_x, self.num_heads, rope)
        text = rotated_heads(y, self.qkv_y, self.q_norm_y, self.k_norm_y, self.num_heads, text_rope)
        q, k, v = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(text, patches, strict=True))
        length = y.shape[1]
        if not self.updates_text:
            return self.proj_x(self.attention(q[:, :, length:], k, v, **options)), None
        mixed = self.attention(q, k, v, **options)  # [B, T + L, D]
        return self.proj_x(mixed[:, length:]), self.proj_y(mixed[:, :length])


class JointBlock(nn.Module):
    """A block over patches and text; both are modulated from the same condition, by maps of their own."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        updates_text: bool = True,
        attention: Attention,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        kit = {"operations": operations, **factory}
        for norm in ("norm_x1", "norm_y1", "norm_x2", "norm_y2"):
            setattr(self, norm, operations.RMSNorm(width, eps=EPS, **factory))
        self.attn = JointAttention(width, num_heads, updates_text=updates_text, attention=attention, **kit)
        self.mlp_x = SwiGLU(width, hidden, **kit)
        self.mlp_y = SwiGLU(width, hidden, **kit)
        self.adaLN_modulation_img = nn.Sequential(operations.Linear(width, 6 * width, **factory))
        self.adaLN_modulation_txt = nn.Sequential(operations.Linear(width, 6 * width, **factory))

    def forward(
        self,
        s: Tensor,
        y: Tensor,
        c: Tensor,
        rope: Rope,
        text_rope: Rope | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Both streams; where the block does not update the text, it comes back as it was."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation_img(c).chunk(6, dim=-1)
        shift_y1, scale_y1, gate_y1, shift_y2, scale_y2, gate_y2 = self.adaLN_modulation_txt(c).chunk(6, dim=-1)
        mixed_s, mixed_y = self.attn(
            norm_modulate(self.norm_x1, s, shift1, scale1),
            norm_modulate(self.norm_y1, y, shift_y1, scale_y1),
            rope,
            text_rope,
            **options,
        )
        s = torch.addcmul(s, gate1, mixed_s)
        s = torch.addcmul(s, gate2, self.mlp_x(norm_modulate(self.norm_x2, s, shift2, scale2)))
        if mixed_y is None:
            return s, y
        y = torch.addcmul(y, gate_y1, mixed_y)
        y = torch.addcmul(y, gate_y2, self.mlp_y(norm_modulate(self.norm_y2, y, shift_y2, scale_y2)))
        return s, y


class PixelDiTT2I(DualPath):
    """Predicts `noise - image` of a noisy image, from its noise level and a text.

    `full_last_block`: whether the last block also updates the text, which never reaches the image.
    """

    def __init__(
        self,
        params: PixelDiTT2IParams,
        *,
        full_last_block: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **factory_kwargs: Any,
    ) -> None:
        self.full_last_block = full_last_block
        super().__init__(params, device=device, dtype=dtype, **factory_kwargs)
        positions = torch.empty(1, params.txt_max_length, params.hidden_size, device=device, dtype=dtype)
        self.y_pos_embedding = nn.Parameter(positions)

    def make_condition_embedder(self, **factory: Any) -> TextEmbedder:
        return TextEmbedder(self.params.txt_embed_dim, self.params.hidden_size, **factory)

    def make_patch_block(self, index: int, **kit: Any) -> JointBlock:
        params = self.params
        updates_text = self.full_last_block or index < params.patch_depth - 1
        return JointBlock(params.hidden_size, params.num_groups, params.mlp_width, updates_text=updates_text, **kit)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, **options: Any) -> Tensor:
        """Velocity towards the noise.

        Args:
            x: [B, in_channels, H, W], nominally in [-1, 1]; H and W multiples of the patch size.
            time: [B], 1000 times the share of noise; kept in float32 for its features.
            text: [B, T, txt_embed_dim] or [B, 1, T, txt_embed_dim]; tokens beyond txt_max_length are cut. Padding
                takes part, as in training: there is no mask.
            options: handed to the attention function.

        Returns:
            [B, in_channels, H, W].
        """
        rope = self.patch_rope(x)
        y = self.embed_text(text.to(x.dtype))  # [B, T, D]
        text_rope = self.text_rope(y)
        s = self.embed_patches(x)  # [B, L, D]
        t_emb = self.t_embedder(time, x.dtype)[:, None]  # [B, 1, D]
        c = F.silu(t_emb)
        for block in self.patch_blocks:
            s, y = block(s, y, c, rope, text_rope, **options)
        return self.paint(x, s, t_emb, **options)

    def embed_text(self, text: Tensor) -> Tensor:
        if text.ndim == 4:
            text = text.squeeze(1)
        y = self.y_embedder(text[:, : self.params.txt_max_length])
        return y + self.y_pos_embedding[:, : y.shape[1]].to(y)  # a host may keep the table elsewhere

    def text_rope(self, y: Tensor) -> Rope | None:
        params = self.params
        if not params.use_text_rope:
            return None
        return rope_1d(y.shape[1], params.hidden_size // params.num_groups, y.device, theta=params.text_rope_theta)
