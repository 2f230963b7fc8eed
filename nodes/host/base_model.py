"""ComfyUI's two classes of a model: its configuration, and what stands between samplers and the network."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch
from torch import Tensor

from ...pixeldit_core.sampling import check_size
from ...pixeldit_core.spec import ModelSpec
from .adapter import make_network
from .compat import in_training
from .conditions import CONDITIONS
from .inputs import check_given
from .latent_format import PixelFormat
from .noise_scale import SETTING, keep_scale
from .padding import padded_size
from .scales import Scales


class PixelDiTConfig(comfy.supported_models_base.BASE):
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = comfy.latent_formats.ChromaRadiance  # BASE makes one; a PixelFormat takes its place
    memory_usage_factor = 0.03  # of the official networks, measured: benchmarks/README.md

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        channels = spec.params.in_channels
        # FreeU looks for model_channels; its patches have no effect here
        super().__init__(
            {"family": spec.family, "params": spec.params, "in_channels": channels, "model_channels": channels}
        )
        self.latent_format = PixelFormat(spec.params)
        self.memory_usage_factor = type(self).memory_usage_factor * spec.family.memory(spec.params)
        scale = spec.family.path(spec.params).noise_scale
        self.sampling_settings = {"shift": spec.settings_for(None).timeshift, "multiplier": 1.0, SETTING: scale}
        self.supported_inference_dtypes = list(spec.family.dtypes)

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> PixelDiTModel:
        return PixelDiTModel(self, device=device)


class PixelDiTModel(comfy.model_base.BaseModel):
    """A network of the core as ComfyUI's samplers, LoRAs and patches know models."""

    def __init__(self, config: PixelDiTConfig, device: Any = None) -> None:
        super().__init__(config, comfy.model_base.ModelType.FLOW, device=device, unet_model=make_network)
        self.pixeldit: ModelSpec = config.spec
        self.loaded = ""  # layout, weights, precision, size in memory
        self.scales: Scales = {}  # of float8 weights of its file that are plain in memory

    def __setattr__(self, name: str, value: Any) -> None:
        """ComfyUI puts the sampling object of a ModelSampling node in the place of ours while it samples."""
        if name == "model_sampling":
            keep_scale(value, self.model_config.sampling_settings[SETTING])
        super().__setattr__(name, value)

    def process_timestep(self, timestep: Tensor, **_: Any) -> Tensor:
        """The one place where the network's sigma becomes t, whatever multiplier the sampling object in use has."""
        return 1.0 - timestep / getattr(self.model_sampling, "multiplier", 1.0)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        spec = self.pixeldit
        check_given(kwargs)
        if (noise := kwargs.get("noise")) is not None:  # once per sampling; the adapter pads up to whole patches
            check_size(spec, *padded_size(spec.family, spec.params, *noise.shape[-2:]))
        # while it samples, ComfyUI computes no gradients
        training = torch.is_grad_enabled() and in_training(self.diffusion_model)
        return super().extra_conds(**kwargs) | CONDITIONS[spec.family.condition].carry(spec, kwargs, training)
