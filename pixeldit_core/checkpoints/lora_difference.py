"""What a LoRA file adds to a whole tensor, such as the vectors that no low-rank pair can change.

ComfyUI's Train LoRA writes `<module>.diff` for the weight of a norm, and `<module>.diff_b` for a bias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..families import Shapes
from .comfy_adaln import join_halves

PARTS = {"diff": "weight", "diff_b": "bias"}  # end of a tensor's name, and which tensor of the module it is added to
_BLOCK = r"(?P<block>pixel_blocks\.\d+\.adaLN_modulation)"
_WHOLE = re.compile(rf"{_BLOCK}\.0\.(?P<kind>weight|bias)")
_HALF = re.compile(rf"{_BLOCK}_(?P<half>msa|mlp)\.(?P<kind>weight|bias)")


@dataclass(frozen=True, eq=False)
class Difference:
    """What a LoRA adds to one tensor: strength * value."""

    value: Tensor  # of the tensor's shape

    def added_to(self, tensor: Tensor, strength: float) -> Tensor:
        """The tensor plus this; computed in float32, returned in the tensor's dtype."""
        value = self.value.to(tensor.device, torch.float32)
        return torch.add(tensor.float(), value, alpha=strength).to(tensor.dtype)


def split_difference(name: str, difference: Difference, channels: int) -> dict[str, Difference]:
    """Split that of a whole pixel modulation into two, for ComfyUI's halves (spec: layouts, section 4); exact.

    Args:
        name: of the whole tensor; the difference of any other tensor is returned as it is.
        channels: width of a pixel, C; the rows are [P, 6, C].
    """
    match = _WHOLE.fullmatch(name)
    if not match:
        return {name: difference}
    maps = rearrange(difference.value, "(pixel map channel) ... -> pixel map channel ...", map=6, channel=channels)
    return {
        f"{match['block']}_{half}.{match['kind']}": Difference(part.flatten(0, 2))
        for half, part in (("msa", maps[:, :3]), ("mlp", maps[:, 3:]))
    }


def join_differences(pieces: Mapping[str, Tensor], shapes: Shapes, source: str) -> dict[str, Difference]:
    """Differences by canonical name: those of ComfyUI's halves of a pixel modulation become one of the whole.

    Raises:
        ValueError: one of another shape than its tensor, or for a tensor that the network does not have.
    """
    joined: dict[str, Tensor] = {}
    blocks: dict[str, dict[str, Tensor]] = {}
    for name, value in pieces.items():
        match = _HALF.fullmatch(name)
        whole = f"{match['block']}.0.{match['kind']}" if match else name
        rows, *columns = shapes.get(whole, (0,))
        _check_shape(name, value, (rows // 2 if match else rows, *columns), source)
        if match:
            blocks.setdefault(whole, {})[match["half"]] = value.float()
        else:
            joined[name] = value
    for name, halves in blocks.items():
        if name in joined:
            raise ValueError(f"{source} changes {name} and ComfyUI's halves of it. Save one alone.")
        nothing = torch.zeros_like(next(iter(halves.values())))
        msa, mlp = (halves.get(half, nothing) for half in ("msa", "mlp"))
        joined[name] = join_halves(msa, mlp, shapes["pixel_embedder.proj.weight"][0])
    return {name: Difference(value) for name, value in joined.items()}


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...], source: str) -> None:
    if tuple(value.shape) != shape:
        found = f"which is {list(shape)}" if any(shape) else "which this network does not have"
        raise ValueError(
            f"{source}: a difference of {list(value.shape)} does not fit {name}, {found}. It was made for another size "
            "of network: choose the checkpoint that it belongs to."
        )
