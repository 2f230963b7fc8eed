"""A LoRA onto a MODEL: our reading of it, the host's own patches."""

from __future__ import annotations

from typing import Any

from comfy.weight_adapter import LoRAAdapter

from ...pixeldit_core.checkpoints.comfy_adaln import join_shapes
from ...pixeldit_core.checkpoints.lora import read_lora
from ...pixeldit_core.checkpoints.lora_delta import Lora, split_pair
from .spec import find_spec

_BEFORE = "diffusion_model."


def add_lora(model: Any, path: str, strength: float) -> tuple[Any, Lora]:
    """A clone of a MODEL, ours or the host's own PixelDiT, with the patches of a LoRA; and what was in its file.

    Raises:
        ValueError: a MODEL that is no PixelDiT; what `read_lora` raises.
    """
    if find_spec(model) is None:
        raise ValueError(
            "this model is no PixelDiT. For other models use ComfyUI's own Load LoRA; connect the MODEL of PixelDiT "
            "Loader or of Load Diffusion Model with a PixelDiT file here."
        )
    stored = {key: tuple(value.shape) for key, value in model.model.diffusion_model.state_dict().items()}
    lora = read_lora(path, join_shapes(stored))
    patches = {}
    for whole, pair in lora.pairs.items():
        parts = {whole: pair}
        if whole not in stored:  # the host's own network keeps some matrices in halves
            parts = split_pair(whole, pair, stored["pixel_embedder.proj.weight"][0])
        for name, part in parts.items():
            patches[_BEFORE + name] = LoRAAdapter(set(), (part.up, part.down, part.alpha, None, None, None))
    patched = model.clone()
    missing = patches.keys() - set(patched.add_patches(patches, strength))
    assert not missing, f"the host does not know {missing}"
    return patched, lora
