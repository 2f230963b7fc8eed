"""The frozen encoder whose features a network aligns with: any vision transformer of transformers or timm."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..extras import require
from ..sizes import Size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Teacher:
    """A frozen encoder; no module, so that no optimizer, wrapper or state dict finds it.

    Args:
        model: the module to keep in evaluation mode, without gradients.
        states: normalized images [B, 3, H, W] -> its last states [B, tokens, width].
        side: of the square images that it sees; None = as many of its patches as the network has.
        prefix: most tokens that may come before the patches: class and registers.
    """

    def __init__(
        self,
        model: nn.Module,
        states: Callable[[Tensor], Tensor],
        *,
        width: int,
        patch_size: int,
        prefix: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        side: int | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.width, self.patch_size = width, patch_size
        self._states, self._prefix, self._side = states, prefix, side
        self._mean, self._std = mean, std

    @torch.no_grad()
    def __call__(self, image: Tensor, grid: Size) -> tuple[Tensor, Size]:
        """Images [B, C, H, W] in [0, 1] -> features [B, N, width] and their grid.

        Images are resized (bicubic) so that it has a patch for each of `grid` (rows, columns), unless the encoder has a
        size of its own (spec: official, 7). Gray ones become RGB.
        """
        if self._side is not None:
            grid = (self._side // self.patch_size, self._side // self.patch_size)
        mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (self._mean, self._std))
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        image = (image.expand(-1, 3, -1, -1) - mean) / std
        if image.shape[-2:] != size:
            image = F.interpolate(image, size, mode="bicubic", align_corners=False)
        states, length = self._states(image), math.prod(grid)
        extra = states.shape[1] - length
        if not 0 <= extra <= self._prefix:
            raise ValueError(
                f"the encoder of objective.repa returned {states.shape[1]} tokens for {length} patches; expected these "
                f"and at most {self._prefix} for class and registers. Choose a plain vision transformer, as DINOv2."
            )
        return states[:, extra:], grid


def load_teacher(name: str, device: torch.device | str, side: int | None = None) -> Teacher:
    """An encoder by name: a folder or hub name for transformers, or "timm:NAME".

    Raises:
        ImportError: its package is missing; the message says what to install.
        ValueError: it cannot be loaded, or is no vision transformer.
    """
    if not name:
        raise ValueError("objective.repa.encoder is empty: name a folder, a hub model or timm:NAME.")
    load = _from_timm if name.startswith("timm:") else _from_transformers
    teacher = load(name.removeprefix("timm:"), side)
    if side is not None and side % teacher.patch_size:
        raise ValueError(
            f"objective.repa.encoder_size is {side}; {name} has patches of {teacher.patch_size}: take a multiple."
        )
    teacher.model.to(device)
    return teacher


def _from_transformers(name: str, side: int | None) -> Teacher:
    transformers = require("transformers")
    try:
        model = transformers.AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"objective.repa.encoder {name} cannot be loaded: {' '.join(str(error).split())}") from error
    model = getattr(model, "vision_model", model)  # of text and images, such as CLIP
    config = model.config
    patch_size = getattr(config, "patch_size", None)
    if not isinstance(patch_size, int):
        raise ValueError(f"objective.repa.encoder {name} has no patches of one size: choose a vision transformer.")
    interpolated = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    options = {"interpolate_pos_encoding": True} if interpolated else {}
    mean, std = _normalization(name)
    return Teacher(
        model,
        lambda image: model(pixel_values=image, **options).last_hidden_state,
        width=config.hidden_size,
        patch_size=patch_size,
        prefix=1 + getattr(config, "num_register_tokens", 0),
        mean=mean,
        std=std,
        side=side,
    )


def _normalization(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of its images, from its preprocessor's configuration; ImageNet's if it has none."""
    processing = require("transformers.image_processing_utils")
    try:
        config: Mapping[str, Any] = processing.BaseImageProcessor.get_image_processor_dict(name)[0]
    except OSError:
        config = {}
    return config.get("image_mean", IMAGENET_MEAN), config.get("image_std", IMAGENET_STD)


def _from_timm(name: str, side: int | None) -> Teacher:
    timm = require("timm")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True)
    except (RuntimeError, TypeError, OSError) as error:
        raise ValueError(f"objective.repa.encoder timm:{name} cannot be loaded: {error}") from error
    return timm_teacher(model, side)


def timm_teacher(model: Any, side: int | None = None) -> Teacher:
    """A vision transformer of timm that takes images of any size."""
    rows, columns = model.patch_embed.patch_size
    assert rows == columns, f"patches of {rows} x {columns}"
    data = model.pretrained_cfg
    return Teacher(
        model,
        model.forward_features,
        width=model.num_features,
        patch_size=rows,
        prefix=model.num_prefix_tokens,
        mean=data.get("mean", IMAGENET_MEAN),
        std=data.get("std", IMAGENET_STD),
        side=side,
    )
