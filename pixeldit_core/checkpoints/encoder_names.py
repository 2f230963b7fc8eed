"""Names of the weights of a DINOv3 ViT in files, and the network's, which are timm's (spec: pixeldit2, 3.3).

timm, transformers and Meta name the same tensors differently. Queries, keys and values are one matrix or three; their
biases are two vectors (none for keys), one vector of three parts whose middle is masked out, or missing, which is zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families import Shapes
from ..families.shapes import count_blocks
from ..text import shorten_list

# The register tokens tell the three apart; each is the end of a name, after whatever a program puts before all names.
REGISTERS = ("reg_token", "embeddings.register_tokens", "storage_tokens")
NUM_REGISTERS = 4
PATCH = 16

_RENAMED = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"^(?:model\.)?layer\.(?=\d)", "blocks."),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^(?:embeddings\.register_tokens|storage_tokens)$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),
        (r"\.attention\.([qkv])_proj\.weight$", r".attn.\1.weight"),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
        (r"\.ls([12])\.gamma$", r".gamma_\1"),
        (r"\.mlp\.up_proj\.", ".mlp.fc1."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    )
)
# Masks of training, the middle of a bias, and periods, which are rounded to bfloat16 in Meta's file and computed here
_IGNORED = re.compile(r"(?:embeddings\.)?mask_token|rope(?:_embed|_embeddings)?\.\w+|.*\.bias_mask")
_BIASES = re.compile(r"blocks\.\d+\.attn\.(?:[qv]_bias|qkv\.bias)")
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Names:
    """The tensors of an encoder under one set of names, in which queries, keys and values may be separate."""

    stored: Mapping[str, str]  # the file's names
    width: int
    depth: int


def find_prefixes(keys: Iterable[str]) -> list[str]:
    """What is before all names of an encoder, for each that may be among `keys`; the shortest first."""
    found = {key[: -len(marker)] for key in keys for marker in REGISTERS if key == marker or key.endswith(f".{marker}")}
    return sorted(found, key=len)


def parse_names(shapes: Shapes, prefix: str, source: str) -> Names:
    """The tensors of an encoder after a prefix, all there and of the right shape.

    Raises:
        ValueError: a tensor that is missing, misshapen, unexpected or there twice.
    """
    stored: dict[str, str] = {}
    for key in shapes:
        if not key.startswith(prefix) or not (name := _rename(key[len(prefix) :])):
            continue
        if name in stored:
            raise ValueError(f"{source} has two tensors for {name[:80]}: {stored[name][:80]} and {key[:80]}.")
        stored[name] = key
    found = {name: tuple(shapes[key]) for name, key in stored.items()}
    if len(found.get("cls_token", ())) != 3:
        raise ValueError(f"{source} has no cls_token of three dimensions. It is damaged, or another encoder.")
    width = found["cls_token"][2]
    try:
        depth = count_blocks(found, "blocks.")
    except ValueError as error:
        raise ValueError(f"{source} is not complete: {error}. Get the file again.") from error
    expected = _expected(found, width, depth)
    missing = [name for name in expected if name not in found]
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    extra = [stored[name] for name in found if name not in expected]
    if missing or not depth:
        names = shorten_list(missing or ["blocks.0"], _SHOWN)
        raise ValueError(f"{source} is not a complete DINOv3 ViT: {names} is missing. Get the file again.")
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{source}: {len(wrong)} tensors have a shape that does not fit a DINOv3 ViT of width {width}, first "
            f"{stored[name][:80]}: {list(found[name])}, expected {list(expected[name])}. It is damaged, or another "
            "encoder: get it again."
        )
    if extra:
        raise ValueError(
            f"{source}: {len(extra)} tensors do not belong to a DINOv3 ViT: {shorten_list(extra, _SHOWN)}. It is "
            "another encoder; get that of the checkpoint."
        )
    return Names(stored, width, depth)


def under_timm_names(tensors: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The weights as the network has them, on any device; those of the file itself where nothing is to be joined."""
    named = {name: tensors[key] for name, key in names.stored.items()}
    for index in range(names.depth):
        at = f"blocks.{index}.attn."
        if f"{at}q.weight" in named:
            named[f"{at}qkv.weight"] = torch.cat([named.pop(f"{at}{part}.weight") for part in "qkv"])
        if (bias := named.pop(f"{at}qkv.bias", None)) is not None:
            named[f"{at}q_bias"], _, named[f"{at}v_bias"] = bias.chunk(3)
    return named | zero_biases(named)


def zero_biases(named: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The biases of queries and values that a file under timm's names leaves out, as it does where all are zero.

    Args:
        prefix: before the names, those given and those returned.
    """
    if any(_BIASES.fullmatch(key[len(prefix) :]) for key in named if key.startswith(prefix)):
        return {}
    zeros = {}
    for key, value in named.items():
        if key.startswith(f"{prefix}blocks.") and key.endswith(".norm1.weight"):
            at = key.removesuffix("norm1.weight") + "attn."
            zeros |= {f"{at}q_bias": torch.zeros_like(value), f"{at}v_bias": torch.zeros_like(value)}
    return zeros


def _rename(key: str) -> str | None:
    """timm's name, or of a third of the queries, keys and values one like it; None = ignored."""
    if _IGNORED.fullmatch(key):
        return None
    for theirs, ours in _RENAMED:
        key = theirs.sub(ours, key)
    return key


def _expected(found: Mapping[str, object], width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors, in the form of queries, keys, values and their biases that the file has."""
    vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.proj.bias", "mlp.fc2.bias")
    block: dict[str, tuple[int, ...]] = {
        **dict.fromkeys((*vectors, "gamma_1", "gamma_2"), (width,)),
        "attn.proj.weight": (width, width),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
    }
    if "blocks.0.attn.q.weight" in found:
        block |= dict.fromkeys((f"attn.{part}.weight" for part in "qkv"), (width, width))
    else:
        block["attn.qkv.weight"] = (3 * width, width)
    if "blocks.0.attn.qkv.bias" in found:
        block["attn.qkv.bias"] = (3 * width,)
    elif any(map(_BIASES.fullmatch, found)):
        block |= {"attn.q_bias": (width,), "attn.v_bias": (width,)}
    return {
        "cls_token": (1, 1, width),
        "reg_token": (1, NUM_REGISTERS, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        **{f"blocks.{index}.{name}": shape for index in range(depth) for name, shape in block.items()},
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
