"""A small text-to-image network with random weights: as a file, in the core, as a MODEL of ours and of the host's."""

from __future__ import annotations

import torch
from kit import Skipped, core, has_native, load, out_of

SIZES = {
    "hidden_size": 32,
    "num_groups": 2,
    "patch_depth": 2,
    "pixel_depth": 2,
    "pixel_attn_hidden_size": 24,
    "pixel_num_groups": 3,
    "patch_size": 8,
    "pixel_hidden_size": 4,
    "txt_embed_dim": 20,
    "txt_max_length": 12,
}


def core_model(**sizes):
    """The network in the core."""
    pc = core()
    model = pc.build("pixeldit_t2i", pc.PixelDiTT2IParams(**{**SIZES, **sizes}), device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.network.named_parameters():
        around = 1.0 if "norm" in name else 0.0
        parameter.data.copy_(around + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def file(name="tiny-t2i.safetensors", layout="canonical", **sizes):
    """Its file; -> path."""
    return core().save_checkpoint(core_model(**sizes), out_of("files") / name, layout)


def ours(**sizes):
    """The MODEL of our loader."""
    return load(file(**sizes))


def native(tensors=None, **sizes):
    """The host's own network, filled with the same weights in the layout that we write for it, as a MODEL."""
    if not has_native():
        raise Skipped("this ComfyUI has no PixelDiT of its own (0.23 and newer have)")
    import comfy.model_patcher
    import comfy.supported_models
    from safetensors.torch import load_file

    config = comfy.supported_models.PixelDiTT2I({"image_model": "pixeldit_t2i", **SIZES, **sizes})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    tensors = tensors or load_file(file("for-comfyui.safetensors", "comfyui", **sizes))
    tensors = {key.removeprefix("core."): value for key, value in tensors.items()}
    missing, unexpected = model.diffusion_model.load_state_dict(tensors, strict=False)
    if missing or unexpected:
        raise AssertionError(f"the host's network lacks {missing} and has no {unexpected}")
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
