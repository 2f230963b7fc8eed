"""Grounding: what a frozen encoder sees in the noisy input, for each patch (spec: pixeldit2, section 4).

Legend: B batch, H x W image, p patch size, L patches, D width, E width of the encoder, e head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.dinov3 import IMAGE_MEAN, IMAGE_STD, PATCH_SIZE, PUBLISHED, DINOv3, exact_dtype
from ...layers.attention import Attention
from ...layers.embeddings import TimestepEmbedder
from ...layers.mlp import swiglu_size
from ...layers.operations import Operations
from ...layers.rope import Rope
from .layers import Block
from .params import PixelDiT2Params


class Projection(nn.Module):
    """Features [B, L, E] of the encoder -> [B, L, D]; it embeds the time on its own."""

    def __init__(
        self, params: PixelDiT2Params, *, attention: Attention, operations: Operations = nn, **factory_kwargs: Any
    ) -> None:
        super().__init__()
        width = params.hidden_size
        self.input_proj = operations.Linear(params.encoder_dim, width, **factory_kwargs)
        self.t_embedder = TimestepEmbedder(width, operations=operations, **factory_kwargs)
        self.blocks = nn.ModuleList(
            Block(
                width,
                params.proj_heads,
                swiglu_size(width),
                attention=attention,
                operations=operations,
                **factory_kwargs,
            )
            for _ in range(params.grounding_proj_blocks)
        )
        self.output_proj = operations.Linear(width, width, **factory_kwargs)

    def forward(self, features: Tensor, time: Tensor, rope: Rope, **options: Any) -> Tensor:
        c = self.t_embedder(time, features.dtype)[:, None]  # [B, 1, D]
        s = self.input_proj(features)
        for block in self.blocks:
            s = block(s, c, rope, **options)
        return self.output_proj(s)


class Conditioner(nn.Module):
    """The encoder, if it is there, and the projection of its features: [B, 3, H, W] -> [B, L, D]."""

    def __init__(
        self, params: PixelDiT2Params, *, attention: Attention, operations: Operations = nn, **factory_kwargs: Any
    ) -> None:
        super().__init__()
        factory_kwargs |= {"attention": attention, "operations": operations}
        self.params = params
        self.encoder: DINOv3 | None = None
        if params.encoder_depth:
            encoder_kwargs: dict[str, Any] = {**factory_kwargs, "dtype": exact_dtype(factory_kwargs.get("dtype"))}
            self.encoder = DINOv3(params.encoder_dim, params.encoder_depth, params.encoder_num_heads, **encoder_kwargs)
        self.dino_proj = Projection(params, **factory_kwargs)

    def forward(self, x: Tensor, time: Tensor, rope: Rope, **options: Any) -> Tensor:
        """Grounding of each patch.

        Args:
            x: [B, 3, H, W], the network's noisy input, never clamped.
            time: [B].
            rope: rotary table of the projection's blocks.
            options: passed to the attention function.

        Returns:
            [B, L, D], in the dtype of `x`.

        Raises:
            ValueError: there is no encoder.
        """
        return self.dino_proj(self.look(x, **options), time, rope, **options)

    def look(self, x: Tensor, **options: Any) -> Tensor:
        """What the encoder finds in the patches of a noisy input [B, 3, H, W]: [B, L, E], in the dtype of `x`."""
        if self.encoder is None:
            raise ValueError(describe_missing(self.params.encoder_dim))
        image = encoder_input(x, self.params).to(self.encoder.cls_token.dtype)
        with torch.no_grad():  # it is frozen, also for those who train adapters of all layers
            return self.encoder(image, **options).to(x.dtype)


def encoder_input(x: Tensor, params: PixelDiT2Params) -> Tensor:
    """What the encoder sees of a noisy input [B, 3, H, W]: float32 [B, 3, 16*H/p, 16*W/p], a token for each patch.

    Resized without antialiasing, also where it shrinks: so the networks were trained.
    """
    channels = zip(x.float().unbind(1), params.image_mean, params.image_std, IMAGE_MEAN, IMAGE_STD, strict=True)
    image = torch.stack([(c * std + mean - theirs) / their_std for c, mean, std, theirs, their_std in channels], dim=1)
    p = params.patch_size
    if p == PATCH_SIZE:
        return image
    size = (x.shape[2] // p * PATCH_SIZE, x.shape[3] // p * PATCH_SIZE)
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=False)


def describe_missing(width: int) -> str:
    """A message for a network whose encoder of this width is not there."""
    published = PUBLISHED.get(width)
    what = f"{published.name}, model.safetensors of {published.repository}" if published else "a DINOv3 ViT of patch 16"
    return (
        f"this PixelDiT2 looks at its own input through a frozen encoder of {width} channels, which is not in its "
        f"checkpoint and was not given: {what} (DINOv3 License, Meta). Load the checkpoint together with the encoder's "
        "file, or sample without grounding (the null class, or skip)."
    )
