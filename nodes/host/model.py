"""A core network as a first-class ComfyUI MODEL: LoRA, offloading, previews, saving and every sampler work with it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import comfy.latent_formats
import comfy.ldm.common_dit
import comfy.model_base
import comfy.model_management as mm
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ...pixeldit_core.checkpoints.comfy_adaln import join_shapes
from ...pixeldit_core.checkpoints.load import Weights, read_weights
from ...pixeldit_core.dtypes import DTYPES, dtype_name
from ...pixeldit_core.families import FAMILIES, Family
from ...pixeldit_core.images import from_signed, to_signed
from ...pixeldit_core.spec import ModelSpec
from .compat import Patcher, fill, keep_scaled
from .conditions import CONDITIONS

log = logging.getLogger(__name__)

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {"default": None, **DTYPES}
_COMPUTED = (torch.bfloat16, torch.float16, torch.float32)  # what a quantized file is brought to


def find_spec(model: Any) -> ModelSpec | None:
    """The spec of a MODEL; None if it is no PixelDiT."""
    return getattr(model.model, "pixeldit", None) or _native_spec(model.model)


def _native_spec(base: Any) -> ModelSpec | None:
    """A PixelDiT of the host's own: its configuration has the name of our family, its weights tell the sizes."""
    config = getattr(base, "model_config", None)
    family = FAMILIES.get((getattr(config, "unet_config", None) or {}).get("image_model"))
    if family is None:
        return None
    shapes = join_shapes({key: tuple(value.shape) for key, value in base.diffusion_model.state_dict().items()})
    return ModelSpec(family, family.params(**family.params_from(shapes)), source="this model")


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, transformer_options: dict | None = None, **_: Any
) -> Tensor:
    """The host's choice of attention: [B, h, L, e] three times -> [B, L, h*e].

    On a CPU, unless the user chose, it would divide the work for little memory; PyTorch's own needs less of both.
    `mask` is the core's: boolean, True where a key takes part.
    """
    chosen = args.use_split_cross_attention or args.use_quad_cross_attention
    function = attention_pytorch if q.device.type == "cpu" and not chosen else optimized_attention
    if mask is not None and function is not attention_pytorch:  # the others add it, and want a row for each query
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf).expand(-1, -1, q.shape[2], -1)
    return function(q, k, v, q.shape[1], mask=mask, skip_reshape=True, transformer_options=transformer_options or {})


class Adapter:
    """Mixed into a family's network: ComfyUI's way to call it, around the network's own forward.

    The keys stay the network's, so `diffusion_model.<key>` is what LoRAs and saved files know.
    """

    family: Family
    dtype: torch.dtype | None

    def forward(self, x: Tensor, timesteps: Tensor, context=None, control=None, transformer_options=None, **conds):
        """x [B,C,H,W] of any size, timesteps = t in [0,1] -> [B,C,H,W], the velocity along sigma = 1 - t."""
        options = transformer_options or {}
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, **conds)

    def _forward(self, x, timesteps, context=None, control=None, transformer_options=None, **conds):
        height, width = x.shape[-2:]
        if x.shape[1] != self.params.in_channels:
            raise ValueError(
                f"this model makes pixels and got a latent of {x.shape[1]} channels; it needs "
                f"{self.params.in_channels} channels at full size. Use PixelDiT Encode with this model connected, or "
                "PixelDiT Size or EmptyChromaRadianceLatentImage for an empty one."
            )
        multiple = self.family.size_multiple(self.params)
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (multiple, multiple))
        network = functools.partial(self.family.network.forward, self)
        arguments = CONDITIONS[self.family.condition].arguments(self.family, context, conds)
        velocity = self.family.velocity(
            network, self.params, padded, timesteps, arguments, transformer_options=transformer_options or {}
        )
        return -velocity[..., :height, :width]


def make_network(family: Family, params: Any, dtype=None, device=None, operations=None, **_: Any) -> torch.nn.Module:
    """A family's network on the host's operations, with the adapter in front."""
    kind = type(f"Host{family.network.__name__}", (Adapter, family.network), {"family": family})
    network = kind(params, operations=operations, attention=attention, device=device, dtype=dtype)
    network.dtype = dtype
    return network.eval()


class PixelDiTModel(comfy.model_base.BaseModel):
    """The host's model around a network of ours."""

    def __init__(self, config: PixelDiTConfig, device: Any = None) -> None:
        super().__init__(config, comfy.model_base.ModelType.FLOW, device=device, unet_model=make_network)
        self.pixeldit: ModelSpec = config.spec
        self.loaded = ""  # layout, weights, precision, size in memory

    def process_timestep(self, timestep: Tensor, **_: Any) -> Tensor:
        """sigma times whatever multiplier the sampling object in place has -> t."""
        return 1.0 - timestep / getattr(self.model_sampling, "multiplier", 1.0)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        known = self.pixeldit
        return super().extra_conds(**kwargs) | CONDITIONS[known.family.condition].carry(known, kwargs)


class PixelFormat(comfy.latent_formats.ChromaRadiance):
    """Pixels at full size in [-1, 1], with the channels of a model: its own mean and spread stay inside of it."""

    def __init__(self, params: Any) -> None:
        self.params = params
        self.latent_channels = params.in_channels
        spread = torch.tensor(params.image_std) * 2
        self.latent_rgb_factors = (torch.diag(spread) if len(spread) == 3 else spread[:, None].expand(-1, 3)).tolist()
        middle = torch.tensor(params.image_mean) * 2 - 1
        self.latent_rgb_factors_bias = middle.expand(3).tolist()

    def process_in(self, latent: Tensor) -> Tensor:
        return from_signed(self.params, latent)

    def process_out(self, latent: Tensor) -> Tensor:
        return to_signed(self.params, latent)


class PixelDiTConfig(comfy.supported_models_base.BASE):
    unet_extra_config: dict[str, Any] = {}
    latent_format = comfy.latent_formats.ChromaRadiance  # each has a PixelFormat of its own
    memory_usage_factor = 0.03  # of the official networks, measured: docs/speed.md

    def __init__(self, weights: Weights) -> None:
        self.spec = spec = weights.spec
        super().__init__({"family": spec.family, "params": spec.params, "in_channels": spec.params.in_channels})
        self.latent_format = PixelFormat(spec.params)
        self.memory_usage_factor = type(self).memory_usage_factor * spec.family.memory(spec.params)
        self.sampling_settings = {"shift": spec.settings_for(None).timeshift, "multiplier": 1000}
        self.supported_inference_dtypes = list(spec.family.dtypes)

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> PixelDiTModel:
        return PixelDiTModel(self, device=device)


def load_model(path: str, weights: str = "auto", weight_dtype: str = "default", disable_dynamic: bool = False) -> Any:
    """A checkpoint as a MODEL (a ModelPatcher).

    Raises:
        ValueError: what `pixeldit_core.load_checkpoint` raises.
    """
    wanted = WEIGHT_DTYPES[weight_dtype]
    found = read_weights(path, weights, compute_dtype=wanted if wanted in _COMPUTED else None)
    config = PixelDiTConfig(found)
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    meta = dict(found.meta)  # counting real ones would dequantize the whole file
    dtype = wanted or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(meta),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(meta),
    )
    compact = keep_scaled(config, found) if wanted is None else None
    cast_from = dtype if compact is None else None
    config.set_inference_dtype(dtype, mm.unet_manual_cast(cast_from, load_device, config.supported_inference_dtypes))
    model = config.get_model(found.tensors, device=offload_device)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else Patcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    fill(model, compact or found.tensors, dtype, patcher)
    # newer hosts make a second, plain patcher from this when a node asks for one
    patcher.cached_patcher_init = (load_model, (path, weights, weight_dtype))
    kept = "" if found.storage is None else ", fp8 kept" if compact else f" from {found.storage}"
    model.loaded = (
        f"layout {found.group.prefix or 'canonical'}, {found.group.weights} weights, "
        f"{dtype_name(dtype)}{kept}, {mm.module_size(model.diffusion_model) / 1e6:,.0f} MB in memory"
    )
    log.info("%s: %s, %s", found.spec.source, found.spec.family.title, model.loaded)
    return patcher
