"""ComfyUI's attention, as the core's networks call it."""

from __future__ import annotations

from typing import Any

import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from .attention_backends import attend


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, transformer_options: dict | None = None, **_: Any
) -> Tensor:
    """ComfyUI's choice of attention: [B, h, L, e] three times -> [B, L, h*e].

    On a CPU, unless the user chose, it would divide the work for little memory; PyTorch's own needs less of both.
    `mask` is the core's: boolean, True where a key takes part.
    """
    chosen = args.use_split_cross_attention or args.use_quad_cross_attention
    function = attention_pytorch if q.device.type == "cpu" and not chosen else optimized_attention
    if mask is not None and function is not attention_pytorch:  # the others add it, and want a row for each query
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf).expand(-1, -1, q.shape[2], -1)
    return attend(function, q, k, v, mask, transformer_options or {})
