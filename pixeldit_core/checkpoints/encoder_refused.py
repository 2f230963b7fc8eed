"""Files that are no encoder for a PixelDiT2: what each is, by its name, its configuration and its tensors.

Usable are the DINOv3 ViTs with a plain MLP that Meta trained on its web images (LVD-1689M): S, B, L (spec: pixeldit2,
3.3 and 3.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..families import Shapes
from ..text import shorten_list
from .encoder_names import PATCH
from .json_values import is_number, short_repr
from .refused_kinds import find_refused
from .weight_sets import find_groups

_ADVICE = "Get the plain DINOv3 ViT (LVD-1689M) that the checkpoint needs: S/16, B/16 or L/16."
_SATELLITE = re.compile(r"sat-?493m", re.IGNORECASE)
_EUPE = re.compile(r"(?:^|[^a-z])eupe(?:[^a-z]|$)", re.IGNORECASE)
_DEEPEST = 4  # parts of a path that may name the model: models--NAME/snapshots/CHECKSUM/model.safetensors
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images of LVD-1689M
_SHOWN = 5

# Ends or pieces of names (those between dots), and what has them; the first counts.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "a DINOv3 with a gated MLP (S+, H+ or 7B), another encoder than those of PixelDiT2",
        (".mlp.gate_proj.weight", ".mlp.fc1_g.weight", ".mlp.w1.weight", ".mlp.w3.weight"),
    ),
    (
        "a ConvNeXt (as DINOv3 has some, too), not a ViT",
        (".depthwise_conv.weight", ".dwconv.weight", ".conv_dw.weight"),
    ),
    ("a DINOv3 whose keys have a bias, another encoder than those of PixelDiT2", (".attention.k_proj.bias",)),
    (
        "a DINOv2 (or another ViT with a table of positions), not a DINOv3",
        ("pos_embed", "embeddings.position_embeddings"),
    ),
    (
        "the vision model of a CLIP or SigLIP, not a DINOv3",
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ),
)
_TYPES = {
    "dinov3_convnext": "a DINOv3 ConvNeXt, not a ViT",
    "dinov2": "a DINOv2, not a DINOv3",
    "dinov2_with_registers": "a DINOv2, not a DINOv3",
    "clip": "a CLIP, not a DINOv3",
    "clip_vision_model": "the vision model of a CLIP, not a DINOv3",
    "siglip_vision_model": "the vision model of a SigLIP, not a DINOv3",
}  # model_type of a transformers config.json


def check_origin(path: Path, metadata: Mapping[str, str], configs: Iterable[Mapping[str, Any]], source: str) -> None:
    """Refuse encoders that have the right tensors, and were trained on other images.

    Args:
        path: of the file: its name, or that of a folder around it, may name the model.
        metadata: of the file.
        configs: of the files beside it.

    Raises:
        ValueError: a satellite variant, an EUPE.
    """
    configs = list(configs)
    texts = [*path.parts[-_DEEPEST:], *metadata.values()]
    for config in configs:
        texts += [value for value in config.values() if isinstance(value, str)]
        nested = config.get("pretrained_cfg")
        texts += [value for value in nested.values() if isinstance(value, str)] if isinstance(nested, Mapping) else []
    other_images = any(map(_has_other_images, configs))
    if other_images or any(map(_SATELLITE.search, texts)):
        raise ValueError(
            f"{source} is a DINOv3 for satellite images (SAT-493M), or for others with a mean and std of their own, "
            f"which no PixelDiT2 was trained with: it would generate wrong images. {_ADVICE}"
        )
    if any(map(_EUPE.search, texts)):
        raise ValueError(f"{source} is an EUPE by its name, not a DINOv3 with the same names of tensors. {_ADVICE}")


def check_config(config: Mapping[str, Any], width: int, depth: int, source: str) -> int | None:
    """The number of heads that a transformers config.json declares; None = it does not.

    Raises:
        ValueError: it is of another encoder, or contradicts the tensors.
    """
    model_type = config.get("model_type")
    if model_type not in (None, "dinov3_vit"):
        kind = _TYPES.get(str(model_type), f"of a model of type {short_repr(model_type)}")
        raise ValueError(f"{source}: config.json beside it says that it is {kind}. {_ADVICE}")
    for key, expected, kind in (
        ("use_gated_mlp", False, "a DINOv3 with a gated MLP (S+, H+ or 7B)"),
        ("key_bias", False, "a DINOv3 whose keys have a bias"),
        ("patch_size", PATCH, "a DINOv3 with other patches"),
        ("hidden_size", width, "of another width than its tensors"),
        ("num_hidden_layers", depth, "of another depth than its tensors"),
    ):
        if config.get(key, expected) != expected:
            raise ValueError(
                f"{source}: config.json beside it says {key} = {short_repr(config[key])}, expected {expected}: it is "
                f"{kind}, which does not fit. {_ADVICE}"
            )
    heads = config.get("num_attention_heads")
    if heads is None:
        return None
    if not is_number(heads) or heads != int(heads) or heads < 1 or width % int(heads):
        raise ValueError(
            f"{source}: config.json beside it says num_attention_heads = {short_repr(heads)}, which does not divide "
            f"its width of {width}. Get both files again."
        )
    return int(heads)


def explain_other(shapes: Shapes, source: str) -> str | None:
    """What a file is that is no DINOv3 ViT with patches of 16; None = it may be one."""
    text = "".join(f".{key}\n" for key in shapes)
    for title, ends in _KINDS:
        if any(f".{end.removeprefix('.')}\n" in text for end in ends):
            return f"{source} is {title}. {_ADVICE}"
    for key, shape in shapes.items():
        is_patches = key.endswith(("patch_embed.proj.weight", "patch_embeddings.weight", "projection.weight"))
        if is_patches and len(shape) == 4 and tuple(shape[2:]) != (PATCH, PATCH):
            return f"{source} is a ViT with patches of {shape[2]}x{shape[3]}, not {PATCH}x{PATCH}. {_ADVICE}"
    return None


def explain_none(shapes: Shapes, source: str) -> str:
    """What a file is without the register tokens of a DINOv3."""
    if groups := find_groups(shapes):
        return f"{source} is a checkpoint ({groups[0].family.title}) without an encoder in it. {_ADVICE}"
    if reason := explain_other(shapes, source):
        return reason
    if kind := find_refused(shapes):
        return f"{source} is {kind.title}, not an encoder. {_ADVICE}"
    first = shorten_list(sorted(shapes), _SHOWN) or "nothing"
    return f"{source} is not a DINOv3 ViT: it has no register tokens. Its first tensors are {first}. {_ADVICE}"


def _has_other_images(config: Mapping[str, Any]) -> bool:
    """Whether a configuration of timm, or of transformers' image processor, has another mean or std."""
    nested = config.get("pretrained_cfg")
    parts = (config, nested if isinstance(nested, Mapping) else {})
    return any(
        _differs(values.get(key), expected)
        for values in parts
        for key, expected in (("mean", _MEAN), ("image_mean", _MEAN), ("std", _STD), ("image_std", _STD))
    )


def _differs(value: Any, expected: tuple[float, ...]) -> bool:
    """Whether it is three numbers, and others than expected."""
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(is_number, value)):
        return False
    return any(abs(a - b) > 1e-3 for a, b in zip(value, expected, strict=True))
