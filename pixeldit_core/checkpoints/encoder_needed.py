"""Which encoder a PixelDiT2 needs, where it comes from, and under which licence (spec: pixeldit2, 3.4)."""

from __future__ import annotations

from ..encoders.dinov3 import PUBLISHED

LICENSE = "DINOv3 License (Meta)"
FOLDER = "models/clip_vision"
# The same weights in Meta's own repositories, behind a form
_GATED = {
    384: "facebook/dinov3-vits16-pretrain-lvd1689m",
    768: "facebook/dinov3-vitb16-pretrain-lvd1689m",
    1024: "facebook/dinov3-vitl16-pretrain-lvd1689m",
}


def title_of(width: int) -> str:
    """Of an encoder, for messages."""
    return f"{PUBLISHED[width].name} (width {width})" if width in PUBLISHED else f"a DINOv3 ViT of width {width}"


def where_to_get(width: int) -> str:
    """The file to get, its folder and its licence, as whole sentences."""
    if width not in PUBLISHED:
        return f"No such encoder is published: get the one that the network was trained with ({LICENSE})."
    return (
        f"Get model.safetensors of {PUBLISHED[width].repository} (or of {_GATED[width]}) from Hugging Face, under the "
        f"{LICENSE}, and put it into ComfyUI's {FOLDER}, or into a folder called encoder beside the checkpoint."
    )


def explain_missing(name: str, width: int, detail: str = "") -> str:
    """The message for a checkpoint without an encoder.

    Args:
        name: of the checkpoint.
        detail: a sentence about an encoder that was found and does not fit, or "".
    """
    return (
        f"{name}: this PixelDiT2 looks at its own input through {title_of(width)}, a frozen encoder that is neither in "
        f"the file nor beside it. {detail}{where_to_get(width)} Or give its path as the encoder; or load without one "
        '("none"), and generate without grounding.'
    )
