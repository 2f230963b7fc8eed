"""The record of a family: everything that differs between model families, as data. And of a published architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..flow.convention import CONVENTIONS, Convention
from ..flow.path import FlowPath
from ..flow.times import Grid
from ..labels import Names
from ..settings import SamplingSettings
from ..sizes import Size
from .normalization import Normalization
from .shapes import Shapes


class Params(Normalization, Protocol):
    """What the params of every family have; each is a frozen dataclass with more."""

    @property
    def patch_size(self) -> int: ...


NetworkCall = Callable[..., Tensor]  # (x, network time [B], *condition, **options) -> prediction


def nearest_level(x: Tensor) -> Tensor:
    """Pixels in [-1, 1] -> the nearest of 256 levels, halves upwards."""
    return ((x.float().clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor().byte()


def _config_as_is(config: Mapping[str, Any], from_shapes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config)


def _patch_size(params: Any) -> int:
    return params.patch_size


def _labels_alone(params: Any, labels: Tensor) -> tuple[Tensor, ...]:
    return (labels,)


def _one_patch(params: Any) -> tuple[Size, None]:
    return (params.patch_size, params.patch_size), None


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the rest of the code needs to know about a family; `Any` is the type of its params."""

    name: str
    title: str  # for messages
    summary: Callable[[Any], str]  # depth and width of params, for messages

    # files
    markers: tuple[str, ...]  # keys that every network of this family has
    excluded_markers: tuple[str, ...] = ()  # keys of other systems that have all the markers, too
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])  # other names in files, by a part of the key
    prefers_ema: bool  # of the weights in a file, as the authors' own inference does
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)  # that work, best first

    # params: by shapes, over a configuration's, over weak defaults
    params: type[Any]
    params_from: Callable[[Shapes], dict[str, Any]]
    config_params: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = _config_as_is
    default_params: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}
    class_names: Callable[[Mapping[str, Any]], Names | None] = lambda config: None  # of a data set named in a config

    # network
    network: type[nn.Module]
    path: Callable[[Any], FlowPath] = lambda params: FlowPath()  # of params or None: its time and prediction
    channels_last: bool = False  # its images are [B, H, W, C]
    memory: Callable[[Any], float] = lambda params: 1.0  # of a call per pixel; 1 = the official networks'
    encoder: str = ""  # its frozen encoder, a module of it; then skip, bool [B] (see nothing), follows the condition

    # condition
    condition: Literal["class", "text"]
    null: Callable[[Any, int], Tensor] | None  # (params, n) -> n null rows; None = encode ""
    unknown: Callable[[Any, int], tuple[Tensor, ...]] | None = None  # rows of images of any class; None = null
    class_arguments: Callable[[Any, Tensor], tuple[Tensor, ...]] = _labels_alone  # of params and classes: the network's
    # (params, network's arguments) -> options of the call whose shapes depend on values: not for a compiled graph
    choose: Callable[[Any, tuple[Any, ...]], dict[str, Tensor]] | None = None
    text_parts: tuple[str, ...] = ()  # of "embeds", "mask", "pooled": its arguments
    text_encoder: str = ""  # which one, and how to load it in ComfyUI
    max_tokens: Callable[[Any], int | None] = lambda params: None  # of a text; None = any, or the network cuts it

    # sizes (height, width)
    size_multiple: Callable[[Any], int] = _patch_size  # of both sides
    size_limits: Callable[[Any], tuple[Size, Size | None]] = _one_patch  # least, largest; None = any
    trained_sizes: Callable[[Any], tuple[Size, ...]]

    # sampling
    grid: Grid
    settings: Mapping[str, SamplingSettings]  # published, by name
    default_settings: Callable[[Any, Size | None], SamplingSettings]  # of params and output size, or None
    reference: Convention | None = None  # where it is not the standard one
    to_uint8: Callable[[Tensor], Tensor] = nearest_level  # of pixels in [-1, 1]

    def velocity(
        self, network: NetworkCall, params: Any, x: Tensor, t: Tensor, condition: tuple[Any, ...], **options: Any
    ) -> Tensor:
        """dx/dt of the common language, whatever time, sign, layout and prediction the network has of its own.

        Args:
            network: this family's, or a function that calls it.
            x: [B, C, H, W].
            t: [B], 0 = noise, 1 = image.
            condition: the network's arguments after x and time.
            options: passed to the attention function.
        """
        path = self.path(params)
        prediction = network(x, path.network_time(t), *condition, **options)
        return path.velocity(prediction.movedim(-1, 1) if self.channels_last else prediction, x, t)

    def convention(self, name: str) -> Convention:
        """How to sample: "standard", correct ODE sampling, or "reference", exactly as the authors' program does.

        Raises:
            ValueError: an unknown name.
        """
        if name not in CONVENTIONS:
            raise ValueError(f'convention "{name}" is not known; there are {", ".join(CONVENTIONS)}.')
        return self.reference if name == "reference" and self.reference else Convention(self.grid)

    def rounding(self, convention: str) -> Callable[[Tensor], Tensor]:
        """From pixels in [-1, 1] to 256 levels, in a convention."""
        return self.convention(convention).to_uint8 or self.to_uint8


@dataclass(frozen=True)
class Variant:
    """A published architecture."""

    family: str
    params: Params
