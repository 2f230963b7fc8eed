"""ComfyUI's way to call a network, around a family's own forward."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from ...pixeldit_core.families import Family
from .attention import attention
from .blocks import INPUT, HookedBlocks
from .conditions import CONDITIONS
from .no_effect import report_options
from .padding import pad, padded_size
from .rope import position_move


class Adapter(HookedBlocks):
    """Mixed into a family's network, so that its keys stay: LoRAs and saved files have `diffusion_model.<key>`."""

    family: Family
    params: Any
    dtype: torch.dtype | None

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """x [B,C,H,W] of any size, timesteps = t in [0,1] -> [B,C,H,W], the velocity along sigma = 1 - t."""
        if torch.is_grad_enabled():  # samplers look at each step; Train LoRA of older versions does not
            comfy.model_management.throw_exception_if_processing_interrupted()
        options = transformer_options or {}
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        if wrappers:
            x = x.clone()  # in float32, it is the sampler's own state, and EasyCache adds to it in place
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, options, **conds)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        height, width = x.shape[-2:]
        if x.shape[1] != self.params.in_channels:
            raise ValueError(
                f"this model generates pixels and got a latent of {x.shape[1]} channels; it needs "
                f"{self.params.in_channels} channels at full size. Use PixelDiT Encode with this model connected, or "
                "PixelDiT Size or EmptyChromaRadianceLatentImage for an empty one."
            )
        padded = pad(x, padded_size(self.family, self.params, height, width))
        network = functools.partial(self.family.network.forward, self)
        arguments = CONDITIONS[self.family.condition].arguments(self.family, self.params, context, conds)
        report_options(transformer_options or {})
        options = dict(transformer_options or {}, **{INPUT: padded})
        velocity = self.family.velocity(
            network, self.params, padded, timesteps, arguments, move=position_move(options), transformer_options=options
        )
        return -velocity[..., :height, :width]


def make_network(
    family: Family,
    params: Any,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    operations: Any = None,
    **_: Any,
) -> torch.nn.Module:
    """A family's network with ComfyUI's layers and attention, called through the adapter."""
    kind = type(f"Comfy{family.network.__name__}", (Adapter, family.network), {"family": family})
    network = kind(_changeable(params), operations=operations, attention=attention, device=device, dtype=dtype)
    network.dtype = dtype
    network.in_channels = params.in_channels  # RenormCFG looks for it
    return network.eval()


def _changeable(params: Any) -> Any:
    """A copy that takes attributes which object patches of other nodes set (FluxKVCache does); ours stay frozen."""
    kind = type(params)
    free = type(kind.__name__, (kind,), {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__})
    return free(**{field.name: getattr(params, field.name) for field in dataclasses.fields(kind)})
