"""ComfyUI's split adaLN: the modulation of a pixel block as two matrices, where the official files have one.

The rows of the one are [P, 6, C]: six maps of C channels for each of the P pixels of a patch. ComfyUI's are the first
three of every pixel (`_msa`, around attention) and the last three (`_mlp`). Splitting and joining are exact (spec:
layouts, section 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from ..families import Shapes

_MSA = re.compile(r"(?P<prefix>.*?)(?P<block>pixel_blocks\.\d+\.adaLN_modulation)_msa\.(?P<kind>weight|bias)")
_WHOLE = re.compile(r"(?P<block>pixel_blocks\.\d+\.adaLN_modulation)\.0\.(?P<kind>weight|bias)")
_ROWS_TO_MAPS = "(pixel map channel) ... -> pixel map channel ..."
_MAPS_TO_ROWS = "pixel map channel ... -> (pixel map channel) ..."


def join_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes as if no matrix of a pixel block were split; the names may have any prefix."""
    joined = dict(shapes)
    for whole, msa, mlp in _find_halves(shapes):
        rows, *rest = joined.pop(msa)
        joined[whole] = (rows + joined.pop(mlp)[0], *rest)
    return joined


def halves_of(whole: str) -> tuple[str, str]:
    """Names of the halves of a matrix that `join_shapes` joined."""
    block, _, kind = whole.rpartition(".0.")
    return f"{block}_msa.{kind}", f"{block}_mlp.{kind}"


def is_half(name: str) -> bool:
    """Whether a tensor is one of ComfyUI's halves."""
    return _MSA.fullmatch(name) is not None or _MSA.fullmatch(name.replace("_mlp.", "_msa.")) is not None


def join_halves(msa: Tensor, mlp: Tensor, channels: int) -> Tensor:
    """The whole of two halves; `channels` is the width of a pixel.

    Raises:
        RuntimeError: dtypes that torch does not join.
    """
    maps = torch.cat([rearrange(half, _ROWS_TO_MAPS, map=3, channel=channels) for half in (msa, mlp)], dim=1)
    return rearrange(maps, _MAPS_TO_ROWS)


def split_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From canonical names to ComfyUI's.

    Raises:
        ValueError: a modulation of four maps, which ComfyUI does not have.
    """
    channels, inputs = tensors["pixel_embedder.proj.weight"].shape
    rows = 6 * channels * (tensors["s_embedder.proj.weight"].shape[1] // inputs)
    split = {}
    for key, value in tensors.items():
        match = _WHOLE.fullmatch(key)
        if not match:
            split[key] = value
            continue
        if value.shape[0] != rows:
            raise ValueError(
                "this network modulates its pixel blocks after their branches (four maps), which ComfyUI's own "
                "PixelDiT does not do. Write the canonical layout instead."
            )
        maps = rearrange(value, _ROWS_TO_MAPS, map=6, channel=channels)
        for name, half in (("msa", maps[:, :3]), ("mlp", maps[:, 3:])):
            split[f"{match['block']}_{name}.{match['kind']}"] = rearrange(half, _MAPS_TO_ROWS)
    return split


def _find_halves(shapes: Shapes) -> list[tuple[str, str, str]]:
    """Names of the whole and of both halves, for each matrix that is split as expected."""
    halves = []
    for msa, shape in shapes.items():
        match = _MSA.fullmatch(msa)
        if not match:
            continue
        start, kind = f"{match['prefix']}{match['block']}", match["kind"]
        mlp, whole = f"{start}_mlp.{kind}", f"{start}.0.{kind}"
        channels = (*shapes.get(f"{match['prefix']}pixel_embedder.proj.weight", ()), 0)[0]
        fits = channels and shape and 0 not in shape and shapes.get(mlp) == shape and shape[0] % (3 * channels) == 0
        if fits and whole not in shapes:
            halves.append((whole, msa, mlp))
    return halves
