"""ComfyUI keeps the modulation of a pixel block as two matrices, the official files as one (spec: layouts, section 4).

The rows of the one are [P, 6, C]: for each pixel, six maps of C channels; ComfyUI's are the first three of every pixel
(`_msa`, around attention) and the last three (`_mlp`). Taking them apart and joining them is exact both ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_HALF = re.compile(r"(?P<prefix>.*?)(?P<block>pixel_blocks\.\d+\.adaLN_modulation)_msa\.(?P<kind>weight|bias)")
_WHOLE = re.compile(r"(?P<block>pixel_blocks\.\d+\.adaLN_modulation)\.0\.(?P<kind>weight|bias)")


def join_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes as if no matrix of a pixel block were split; the names may have any prefix."""
    joined = dict(shapes)
    for whole, msa, mlp in _find(shapes):
        rows, *rest = joined.pop(msa)
        joined[whole] = (rows + joined.pop(mlp)[0], *rest)
    return joined


def halves_of(whole: str) -> tuple[str, str]:
    """Names of the halves of a matrix that `join_shapes` joined."""
    block, _, kind = whole.rpartition(".0.")
    return f"{block}_msa.{kind}", f"{block}_mlp.{kind}"


def is_half(name: str) -> bool:
    """Whether a tensor is one of ComfyUI's halves."""
    return _HALF.fullmatch(name) is not None or _HALF.fullmatch(name.replace("_mlp.", "_msa.")) is not None


def join_halves(msa: Tensor, mlp: Tensor, channels: int) -> Tensor:
    """The whole of two halves; `channels` is the width of a pixel.

    Raises:
        RuntimeError: dtypes that torch does not join.
    """
    rest = msa.shape[1:]
    return torch.cat([half.reshape(-1, 3, channels, *rest) for half in (msa, mlp)], dim=1).reshape(-1, *rest)


def split_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From canonical names to ComfyUI's.

    Raises:
        ValueError: a modulation of four maps, which ComfyUI does not know.
    """
    channels, halved = tensors["pixel_embedder.proj.weight"].shape[0], {}
    pixels = tensors["s_embedder.proj.weight"].shape[1] // tensors["pixel_embedder.proj.weight"].shape[1]
    for key, value in tensors.items():
        found = _WHOLE.fullmatch(key)
        if not found:
            halved[key] = value
            continue
        rest = value.shape[1:]
        if value.shape[0] != 6 * channels * pixels:
            raise ValueError(
                "this network modulates its pixel blocks after their branches (four maps), which ComfyUI's own "
                "PixelDiT does not know. Write the canonical layout instead."
            )
        maps = value.view(pixels, 6, channels, *rest)
        for name, part in (("msa", maps[:, :3]), ("mlp", maps[:, 3:])):
            halved[f"{found['block']}_{name}.{found['kind']}"] = part.reshape(-1, *rest)
    return halved


def _find(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str, str]]:
    """Names of the whole and of both halves, for each matrix that is split as expected."""
    found = []
    for msa, shape in shapes.items():
        match = _HALF.fullmatch(msa)
        if not match:
            continue
        start, kind = f"{match['prefix']}{match['block']}", match["kind"]
        mlp, whole = f"{start}_mlp.{kind}", f"{start}.0.{kind}"
        channels = (*shapes.get(f"{match['prefix']}pixel_embedder.proj.weight", ()), 0)[0]
        fits = channels and shape and 0 not in shape and shapes.get(mlp) == shape and shape[0] % (3 * channels) == 0
        if fits and whole not in shapes:
            found.append((whole, msa, mlp))
    return found
