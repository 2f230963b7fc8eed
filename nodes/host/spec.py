"""Which MODEL is a PixelDiT: loaded by this pack, or by ComfyUI itself."""

from __future__ import annotations

from typing import Any

from ...pixeldit_core.checkpoints.comfy_adaln import join_shapes
from ...pixeldit_core.families import FAMILIES
from ...pixeldit_core.spec import ModelSpec
from .packed import real_shapes


def find_spec(model: Any) -> ModelSpec | None:
    """The spec of a MODEL; None if it is no PixelDiT.

    That of ComfyUI's own PixelDiT is read from all of its weights: look once, and pass the spec on.
    """
    return getattr(model.model, "pixeldit", None) or _native_spec(model.model)


def _native_spec(base: Any) -> ModelSpec | None:
    """A PixelDiT that ComfyUI loaded: its configuration has the name of our family, its weights have the sizes."""
    config = getattr(base, "model_config", None)
    family = FAMILIES.get((getattr(config, "unet_config", None) or {}).get("image_model"))
    if family is None:
        return None
    shapes = join_shapes(real_shapes(base.diffusion_model))
    return ModelSpec(family, family.params(**family.params_from(shapes)), source="this model")
