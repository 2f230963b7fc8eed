"""ComfyUI's attention, as the core's networks call it, and what other nodes make of it in patch blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from .attention_backends import attend
from .no_effect import maker_name, report_once

STG = "stg_self_attn_blocks"  # LTXVSpatioTemporalGuidance: the blocks whose attention returns the values
_HOOKS = ("patches", "patches_replace", STG)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, transformer_options: dict | None = None, **_: Any
) -> Tensor:
    """ComfyUI's choice of attention: [B, h, L, e] three times -> [B, L, h*e].

    On a CPU, unless the user chose, it would divide the work for little memory; PyTorch's own needs less of both.
    `mask` is the core's: boolean, True where a key takes part.
    """
    options = transformer_options or {}
    if "block_index" in options and any(options.get(hook) for hook in _HOOKS):
        return _hooked(q, k, v, mask, options)
    return _attention(q, k, v, mask, options)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor:
    chosen = args.use_split_cross_attention or args.use_quad_cross_attention
    function = attention_pytorch if q.device.type == "cpu" and not chosen else optimized_attention
    if mask is not None and function is not attention_pytorch:  # the others add it, and want a row for each query
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf).expand(-1, -1, q.shape[2], -1)
    return attend(function, q, k, v, mask, options)


def _hooked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor:
    """Attention of a patch block, perturbed or patched by other nodes (PAG, STG, NAG)."""
    extra = {**options, "n_heads": q.shape[1], "dim_head": q.shape[3], "attn_precision": None}
    absent = k.shape[2] - q.shape[2]  # the text does not query in the last block of text-to-image
    if "img_slice" in extra:
        extra["img_slice"] = [place - absent for place in extra["img_slice"]]
    if options["block_index"] in options.get(STG, ()):
        out = _heads_joined(v)[:, absent:]
    elif (replace := _replacement(options)) is not None:
        out = replace(*map(_heads_joined, (q, k, v)), extra)[:, -q.shape[2] :]
    else:
        out = _attention(q, k, v, mask, options)
    for patch in options.get("patches", {}).get("attn1_output_patch", ()):
        out = patch(out, extra)
    return out


def _replacement(options: dict[str, Any]) -> Callable[..., Tensor] | None:
    """The replacement of attention in this block, if it is the middle one.

    PerturbedAttentionGuidance asks for that of a U-Net's middle block, for its extra pass alone; here the patch block
    in the middle takes its part. Other places of a U-Net have no counterpart.
    """
    replaced = options.get("patches_replace", {}).get("attn1")
    if not replaced or options["block_index"] != (options["total_blocks"] - 1) // 2:
        return None
    for key, replace in replaced.items():
        if key[0] == "middle":
            return replace
    node = maker_name(next(iter(replaced.values())))
    report_once(options, node, 'has no effect on a PixelDiT: of the attention of a U-Net only "middle" acts')
    return None


def _heads_joined(x: Tensor) -> Tensor:
    """[B, h, L, e] -> [B, L, h*e]."""
    return x.transpose(1, 2).flatten(2)
