"""Alignment of a network's patches with the features of a frozen encoder (REPA, arXiv 2410.06940; iREPA)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.patchify import to_image, to_tokens
from ..model import Model
from ..sizes import Size
from .capture import Captured
from .config import RepaConfig


class Encoder(Protocol):
    """A frozen encoder, such as `teacher.Teacher`."""

    @property
    def width(self) -> int: ...

    def __call__(self, image: Tensor, grid: Size) -> tuple[Tensor, Size]:
        """Images [B, C, H, W] in [0, 1] -> features [B, N, width] of a grid (rows, columns), `grid` if it can be."""
        ...


class PatchStream(NamedTuple):
    """Where the patches of a family are."""

    blocks: str  #            the network's list of patch blocks
    width: str  #             their width in the params
    last: bool = False  #     whether text or context tokens come before them in one sequence


_XPRED_PATCHES, _XPRED_PIXELS = PatchStream("blocks", "dim"), PatchStream("dit_blocks", "dim")
STREAMS = {
    "pixeldit": PatchStream("patch_blocks", "hidden_size"),
    "pixeldit_t2i": PatchStream("patch_blocks", "hidden_size"),
    "pixelhdm": PatchStream("patch_blocks", "hidden_dim", last=True),
    "pixeldit2": PatchStream("patch_blocks", "hidden_size", last=True),
    "xpred_dit": _XPRED_PATCHES,
    "xpred_mmdit": _XPRED_PATCHES,
    "xpred_pixeldit": _XPRED_PIXELS,
    "xpred_mmpixeldit": _XPRED_PIXELS,
}


def patch_blocks(model: Model) -> nn.ModuleList:
    """The patch blocks of a network of any family."""
    blocks = model.network.get_submodule(STREAMS[model.family.name].blocks)
    assert isinstance(blocks, nn.ModuleList)
    return blocks


class PatchTokens(Captured):
    """The patches that a block returns, `block` counted from 1.

    Raises:
        ValueError: the network has no such block.
    """

    def __init__(self, model: Model, block: int) -> None:
        self._stream, self._patch_size = STREAMS[model.family.name], model.params.patch_size
        self.width: int = getattr(model.params, self._stream.width)
        blocks = patch_blocks(model)
        if not 1 <= block <= len(blocks):
            raise ValueError(f"objective.repa.block is {block}; the network has patch blocks 1 to {len(blocks)}.")
        super().__init__([blocks[block - 1]])

    def take_patches(self, size: Size) -> tuple[Tensor, Size]:
        """Patches [B, L, D] of images of `size`, and their grid; text, registers and context tokens are cut off."""
        (output,) = self.take()
        tokens = output[0] if isinstance(output, tuple) else output  # of two streams, the patches' is first
        grid = (size[0] // self._patch_size, size[1] // self._patch_size)
        length = math.prod(grid)
        return (tokens[:, -length:] if self._stream.last else tokens[:, :length]), grid


class MLPProjector(nn.Sequential):
    """Patches [B, L, D] of a grid -> [B, L, outputs] (spec: official, 7)."""

    def __init__(self, width: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, tokens: Tensor, grid: Size) -> Tensor:
        return super().forward(tokens)


class ConvProjector(nn.Conv2d):
    """Patches [B, L, D] of a grid -> [B, L, outputs], with their neighbors (iREPA; spec: pixelhdm, 11)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs, 3, padding=1)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor, grid: Size) -> Tensor:
        return to_tokens(super().forward(to_image(tokens, *grid)))


Projector = MLPProjector | ConvProjector


def build_projector(config: RepaConfig, width: int, outputs: int) -> Projector:
    """From patches of a width to an encoder's features, initialized from torch's global generator."""
    if config.projector == "conv":
        return ConvProjector(width, outputs)
    return MLPProjector(width, config.hidden_size or width, outputs)


def alignment_loss(projected: Tensor, grid: Size, features: Tensor, features_grid: Size, config: RepaConfig) -> Tensor:
    """How far projected patches [B, L, C] are from features [B, N, C], times its weight: [B]. Rounded in float32."""
    projected, features = projected.float(), features.float()
    if grid != features_grid:
        if config.resample == "student":
            projected = resample_student(projected, grid, features_grid)
        elif math.prod(grid) > math.prod(features_grid):
            projected = _bilinear(projected, grid, features_grid)
        else:
            features = _bilinear(features, features_grid, grid)
    if config.projector == "conv":
        features = spatially_normalized(features)
    cosine = F.cosine_similarity(projected, features, dim=-1).mean(1)
    return config.weight * (-cosine if config.similarity == "negative_cosine" else 1 - cosine)


def resample_student(tokens: Tensor, grid: Size, target: Size) -> Tensor:
    """Tokens [B, L, C] on another grid: averages if it has fewer of them, else bilinear (spec: official, 7)."""
    if math.prod(target) < math.prod(grid):
        return to_tokens(F.adaptive_avg_pool2d(to_image(tokens, *grid), target))
    return _bilinear(tokens, grid, target)


def _bilinear(tokens: Tensor, grid: Size, target: Size) -> Tensor:
    return to_tokens(F.interpolate(to_image(tokens, *grid), target, mode="bilinear", align_corners=False))


def spatially_normalized(features: Tensor) -> Tensor:
    """Features [B, N, C], each channel with mean 0 and unbiased std 1 over the tokens of an image (iREPA)."""
    mean, std = features.mean(1, keepdim=True), features.std(1, keepdim=True)
    return (features - mean) / (std + 1e-6)
