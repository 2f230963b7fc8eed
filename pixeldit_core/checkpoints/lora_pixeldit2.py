"""LoRA files of PixelDiT2's trainer (`pixeldit2-lora-v1`; spec: pixeldit2, section 8).

They have `<module>.lora_A` and `<module>.lora_B` without "weight", and each module's alpha in the header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..families import Shapes
from .encoder_inside import PROJECTION
from .json_values import is_number, short_repr, short_text

FORMAT = "pixeldit2-lora-v1"
_BARE = (".lora_A", ".lora_B")  # all others end in ".weight"
_EDITING = ("source_final_gate", "source_gates", "source_dino_proj.")
# Layers, with "_" for ".", that only PixelDiT2 has, and that only the first PixelDiT has
_SECOND = re.compile(r"dino_conditioner_|(?:patch_blocks_\d+|final_layer)_adaLN_modulation_1(?:_|$)")
_FIRST = re.compile(r"pixel_blocks_\d+_|pixel_embedder_|patch_blocks_\d+_adaLN_modulation_0(?:_|$)")


def is_of_trainer(tensors: Iterable[str], metadata: Mapping[str, str]) -> bool:
    """Whether a file is one of PixelDiT2's own trainer."""
    return metadata.get("format") == FORMAT or any(key.endswith(_BARE) for key in tensors)


def check_editing(tensors: Iterable[str], metadata: Mapping[str, str], source: str) -> None:
    """Refuse an adapter that makes an editing model of a PixelDiT2.

    Raises:
        ValueError: it is one.
    """
    declared = metadata.get("format", "")
    editing = declared.startswith("pixeldit2-edit") or any(key.startswith(_EDITING) for key in tensors)
    if editing:
        raise ValueError(
            f"{source} is an adapter for editing of PixelDiT2 (pixeldit2-edit-adapter-v1), not a LoRA: it adds a "
            "second input to the network, which is not supported. Choose a LoRA."
        )
    if declared.startswith("pixeldit2") and declared != FORMAT:
        raise ValueError(
            f"{source} is of the format {declared[:80]}, which is not known; {FORMAT} is. Get a newer version of "
            "ComfyUI-PixelDiT, or save the LoRA in that format."
        )


def check_network(
    modules: Iterable[str], tensors: Iterable[str], metadata: Mapping[str, str], shapes: Shapes, source: str
) -> None:
    """Refuse a LoRA of PixelDiT2 for another network, and one of another PixelDiT for a PixelDiT2.

    Blocks of both have matrices of the same names.

    Args:
        modules: of the file.
        shapes: of the network's weights.

    Raises:
        ValueError: it is for the other one.
    """
    flat = [module.replace(".", "_") for module in modules]
    if PROJECTION in shapes:
        if not is_of_trainer(tensors, metadata) and any(map(_FIRST.search, flat)):
            raise ValueError(
                f"{source} is a LoRA of the first PixelDiT (it has layers that PixelDiT2 does not have). Choose one "
                "for PixelDiT2, or the model that it was made for."
            )
    elif is_of_trainer(tensors, metadata) or any(map(_SECOND.search, flat)):
        raise ValueError(
            f"{source} is a LoRA of PixelDiT2, another network of that name. Choose one for this model, or a "
            "checkpoint of PixelDiT2."
        )


def is_alpha_unknown(tensors: Iterable[str]) -> bool:
    """Whether a pair of the trainer has no alpha, after `alphas` were added."""
    tensors = set(tensors)
    down = _BARE[0]
    return any(key.endswith(down) and f"{key.removesuffix(down)}.alpha" not in tensors for key in tensors)


def alphas(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> dict[str, Tensor]:
    """Alpha of each module, under the name that other writers give it; empty for their files.

    Raises:
        ValueError: a list that is not readable, or that does not agree with the tensors.
    """
    if metadata.get("format") != FORMAT or "modules" not in metadata:
        return {}
    try:
        modules = json.loads(metadata["modules"])
        listed = {str(entry["name"]): (entry.get("rank"), entry["alpha"]) for entry in modules}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{source}: its list of modules is not readable ({short_text(error)}). The file is damaged: get it again."
        ) from error
    found: dict[str, Tensor] = {}
    for name, (rank, alpha) in listed.items():
        down = tensors.get(f"{name}.lora_A")
        if down is None:
            raise ValueError(f"{source}: {name[:80]} is in its list, and not in it. It is incomplete: get it again.")
        if not is_number(alpha) or (rank is not None and down.shape[:1] != (rank,)):
            raise ValueError(
                f"{source}: its list says rank {short_repr(rank)} and alpha {short_repr(alpha)} for {name[:80]}, whose "
                f"first matrix is {list(down.shape)}. The file is damaged: get it again."
            )
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found
