"""Which encoder a PixelDiT2 needs, where it comes from, and under which licence (spec: pixeldit2, 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

LICENSE = "DINOv3 License (Meta)"
FOLDER = "models/clip_vision"


@dataclass(frozen=True)
class Published:
    """A published DINOv3 ViT that networks were trained with."""

    title: str
    timm: str  #  repository on the Hugging Face Hub; its file is model.safetensors
    meta: str  #  the same weights, behind a form


PUBLISHED: dict[int, Published] = {
    384: Published(
        "DINOv3 ViT-S/16",
        "timm/vit_small_patch16_dinov3_qkvb.lvd1689m",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
    ),
    768: Published(
        "DINOv3 ViT-B/16",
        "timm/vit_base_patch16_dinov3_qkvb.lvd1689m",
        "facebook/dinov3-vitb16-pretrain-lvd1689m",
    ),
    1024: Published(
        "DINOv3 ViT-L/16",
        "timm/vit_large_patch16_dinov3_qkvb.lvd1689m",
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
    ),
}  # by width


def title_of(width: int) -> str:
    """Of an encoder, for messages."""
    return f"{PUBLISHED[width].title} (width {width})" if width in PUBLISHED else f"a DINOv3 ViT of width {width}"


def where_to_get(width: int) -> str:
    """The file to get, its folder and its licence, as a sentence."""
    if width not in PUBLISHED:
        return f"It is not one of Meta's: get the encoder that the network was trained with. ({LICENSE}.)"
    published = PUBLISHED[width]
    return (
        f"Get model.safetensors of {published.timm} (or of {published.meta}) from the Hugging Face Hub, under the "
        f"{LICENSE}, and put it into ComfyUI's {FOLDER}, or into a folder called encoder beside the checkpoint."
    )
