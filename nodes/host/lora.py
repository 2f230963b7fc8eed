"""A LoRA file onto a MODEL: the pack's reading of names, ComfyUI's patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy.weight_adapter import LoRAAdapter

from ...pixeldit_core.checkpoints.comfy_adaln import join_shapes
from ...pixeldit_core.checkpoints.lora import read_lora
from ...pixeldit_core.checkpoints.lora_delta import split_pair
from .lora_adapters import difference_patches, read_adapters
from .packed import real_shapes
from .spec import find_spec

PREFIX = "diffusion_model."


@dataclass(frozen=True)
class AppliedLora:
    """What was applied of a LoRA file."""

    applied: int  #              modules of the file that the network has
    total: int  #                modules of the file
    weights: int  #              weights of the network that change
    unknown: tuple[str, ...]  #  modules, and tensors of none, that fit no weight of the network
    notes: tuple[str, ...] = ()  # what of its training is not applied, or had to be assumed


def add_lora(model: Any, path: str, strength: float) -> tuple[Any, AppliedLora]:
    """A clone of a MODEL, ours or ComfyUI's own PixelDiT, with the patches of a LoRA, DoRA, LoHa, LoKr or OFT.

    Raises:
        ValueError: a MODEL that is no PixelDiT; what `read_lora` and `read_adapters` raise.
    """
    if find_spec(model) is None:
        raise ValueError(
            "this model is not a PixelDiT. For other models use Load LoRA; connect the MODEL of PixelDiT Loader, or of "
            "Load Diffusion Model with a PixelDiT file, here."
        )
    patches, lora = _read(path, real_shapes(model.model.diffusion_model))
    patched = model.clone()
    missing = {PREFIX + name for name in patches} - set(
        patched.add_patches({PREFIX + name: patch for name, patch in patches.items()}, strength)
    )
    assert not missing, f"ComfyUI has no weights {missing}"
    return patched, lora


def _read(path: str, stored: dict[str, tuple[int, ...]]) -> tuple[dict[str, Any], AppliedLora]:
    """Patches by the name of a weight, as the MODEL has it."""
    if adapters := read_adapters(path, stored):
        patches, matched, notes = adapters
        return patches, AppliedLora(len(matched.modules), matched.total, len(patches), tuple(matched.unknown), notes)
    lora = read_lora(path, join_shapes(stored))
    patches = difference_patches(lora.differences, stored)
    for whole, pair in lora.pairs.items():
        parts = {whole: pair}
        if whole not in stored:  # ComfyUI's own network keeps some matrices in halves
            parts = split_pair(whole, pair, stored["pixel_embedder.proj.weight"][0])
        for name, part in parts.items():
            patches[name] = LoRAAdapter(set(), (part.up, part.down, part.alpha, None, None, None))
    return patches, AppliedLora(lora.applied, lora.total, len(lora.deltas), lora.unknown, lora.notes)
