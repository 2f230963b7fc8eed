"""Checkpoint -> MODEL: LoRA, offloading, previews, saving and every sampler work with it."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import torch

from ...pixeldit_core.checkpoints.load import Weights, read_weights
from ...pixeldit_core.dtypes import DTYPES, dtype_name
from ...pixeldit_core.text import shorten_list
from .base_model import PixelDiTConfig
from .compat import Patcher
from .encoders import AUTO, candidates, describe_encoder
from .no_effect import with_report
from .noise_scale import with_scaled_steps
from .scales import read_scales
from .weights import load_weights, scaled_tensors

log = logging.getLogger(__name__)

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {"default": None, **DTYPES}
_NOT_EVERYWHERE = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_COMPUTED = (torch.bfloat16, torch.float16, torch.float32)  # what a quantized file can be dequantized to


def load_model(
    path: str, weights: str = "auto", weight_dtype: str = "default", encoder: str = AUTO, disable_dynamic: bool = False
) -> Any:
    """A checkpoint as a MODEL (a ModelPatcher).

    Args:
        encoder: of a PixelDiT2: "auto" (inside of the checkpoint, else beside it, else the only one that fits in
            ComfyUI's folders), "none", or the path of a file.

    Raises:
        ValueError: what `pixeldit_core.load_checkpoint` raises.
    """
    wanted = WEIGHT_DTYPES[weight_dtype]
    if wanted is not None:
        _check_device(weight_dtype, wanted)
    read = read_weights(
        path,
        weights,
        compute_dtype=wanted if wanted in _COMPUTED else None,
        encoder=None if encoder == AUTO else encoder,
        more_encoders=candidates(),
    )
    config = PixelDiTConfig(read.spec)
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    dtype = wanted or _default_dtype(read, config)
    keep = wanted is None and all(_is_castable(weight.dtype) for weight, _ in read.scaled.values())
    compact = scaled_tensors(config, read) if keep else None
    scales = read_scales(read) if wanted is None and compact is None else {}
    cast_from = dtype if compact is None else None
    config.set_inference_dtype(dtype, mm.unet_manual_cast(cast_from, load_device, config.supported_inference_dtypes))
    model = config.get_model(read.tensors, device=offload_device)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else Patcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    load_weights(model, compact or read.tensors, dtype, patcher)
    with_report(patcher)
    with_scaled_steps(patcher)
    # newer versions of ComfyUI make a second, plain patcher from this when a node asks for one
    same_encoder = encoder if read.encoder is None else str(read.encoder)
    patcher.cached_patcher_init = (load_model, (path, weights, weight_dtype, same_encoder))
    model.scales = scales
    described = _describe(read, dtype, bool(compact), mm.module_size(model.diffusion_model))
    model.loaded = "\n".join(filter(None, (described, describe_encoder(read.spec, read.encoder))))
    log.info("%s: %s, %s", read.spec.source, read.spec.family.title, model.loaded.replace("\n", "; "))
    return patcher


def _default_dtype(read: Weights, config: PixelDiTConfig) -> torch.dtype:
    meta = dict(read.meta)  # counting real ones would dequantize the whole file
    dtype = mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(meta),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(meta),
    )
    if _is_castable(dtype):
        return dtype
    return mm.unet_manual_cast(dtype, mm.get_torch_device(), config.supported_inference_dtypes) or torch.float32


def _is_castable(dtype: torch.dtype) -> bool:
    """Whether the device can hold and convert weights of a type: MPS and DirectML know no float8."""
    return dtype not in _NOT_EVERYWHERE or mm.supports_cast(mm.get_torch_device(), dtype)


def _check_device(weight_dtype: str, dtype: torch.dtype) -> None:
    """Raises ValueError for a type that was chosen and that the device does not have."""
    if not _is_castable(dtype):
        raise ValueError(
            f"weight_dtype is {weight_dtype}, which this device ({mm.get_torch_device().type}) does not have. Choose "
            "default, or fp16."
        )


def _describe(read: Weights, dtype: torch.dtype, compact: bool, size: int) -> str:
    origin = "" if read.storage is None else ", fp8 kept" if compact else f" from {read.storage}"
    others = f" (also in the file: {shorten_list(read.others, 3)})" if read.others else ""
    return (
        f"layout {read.group.prefix or 'canonical'}, {read.group.weights} weights{others}, "
        f"{dtype_name(dtype)}{origin}, {size / 1e6:,.0f} MB in memory"
    )
