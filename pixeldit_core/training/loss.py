"""The loss of a model on a batch, as one module: the network, and the projector that is trained with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..families.record import Family
from ..images import to_signed
from ..model import Model
from .capture import Captured
from .config import ObjectiveConfig
from .draws import DROPOUT, GROUNDING, JOINT, TIME, Draws
from .frequency import frequency_loss
from .frozen import has_encoder, is_frozen
from .objective import (
    Parts,
    drop_condition,
    gamma_penalty,
    integer_times,
    logit_normal_times,
    noisy,
    squared_error,
    uniform_times,
)
from .repa import Encoder, PatchTokens, Projector, alignment_loss, build_projector

GROUNDING_DROPOUT = 0.1  # as published (spec: pixeldit2, 10)
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # in names of parameters


@dataclass
class Batch:
    """Images with their conditions."""

    image: Tensor  #         float32 [B, C, H, W] in the model's range
    condition: Parts  #      (labels [B],) or (states [B, T, D][, mask [B, T], pooled [B, D]])
    null: Parts | None  #    of the empty caption, one row; None for classes
    weight: Tensor  #        float32 [B], what an image counts


class Loss(nn.Module):
    """Losses of each image; the math around the network is in float32, whatever the autocast.

    Args:
        teacher: the encoder of `config.repa`, not trained and not in the state dict.

    Raises:
        ValueError: an objective that is not for this family.
    """

    def __init__(self, model: Model, config: ObjectiveConfig, teacher: Encoder | None = None) -> None:
        super().__init__()
        _check(model, config)
        self.network, self.params, self.config = model.network, model.params, config
        self.family = _with_noise_level(model.family, model.params, config.min_noise_level)
        self.path = self.family.path(model.params)
        self.projector: Projector | None = None
        if config.repa is not None:
            assert teacher is not None, "REPA needs its encoder"
            self.teacher, self.patches = teacher, PatchTokens(model, config.repa.block)
            self.projector = build_projector(config.repa, self.patches.width, teacher.width)
        self.pixel_maps: Captured | None = None
        if config.gamma_penalty:
            blocks = model.network.get_submodule("pixel_blocks").children()
            self.pixel_maps = Captured(block.get_submodule("adaln") for block in blocks)

    def forward(self, batch: Batch, draws: Draws, step: int = 0) -> dict[str, Tensor]:
        """Parts of the loss by name, each weighted and float32 [B], "flow" first; their sum is the loss.

        `step` is the optimizer step, from 0: alignment ends at `config.repa.until`.
        """
        condition = self._condition(batch, draws, step)
        with _float32(batch.image):
            t, network_time = self._times(draws)
            x, target = noisy(self.path, batch.image, draws.noise, t)

        def network(x: Tensor, time: Tensor, *rest: Any) -> Tensor:
            return self._call(x, time if network_time is None else network_time, rest)

        with self._recording(step):
            predicted = self.family.velocity(network, self.params, x, t, condition).float()
        with _float32(batch.image):
            parts = {"flow": squared_error(predicted, target)}
        if self.config.repa is not None:
            parts["repa"] = self._alignment(batch.image, step)
        with _float32(batch.image):
            if self.config.frequency is not None:
                parts["frequency"] = frequency_loss(predicted, target, self.config.frequency)
            if self.pixel_maps is not None:
                parts["gamma"] = self.config.gamma_penalty * gamma_penalty(self.pixel_maps.take(), len(x))
        return parts

    def _times(self, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """t [B], and the network's own times where they are not the path's."""
        config = self.config
        if config.times == "integer":
            return integer_times(draws.normal, config.timeshift, mean=config.time_mean, std=config.time_std)
        within = self.path.time_range
        if config.times == "uniform":
            uniform = draws.uniform[:, TIME].to(draws.normal.device, non_blocking=True)
            return uniform_times(uniform, config.timeshift, time_range=within), None
        mean, std = config.time_mean, config.time_std
        return logit_normal_times(draws.normal, config.timeshift, mean=mean, std=std, time_range=within), None

    def _condition(self, batch: Batch, draws: Draws, step: int) -> Parts:
        """What the network is given; of one with an encoder the last part is skip, bool [B], on the CPU."""
        config, uniform = self.config, draws.uniform
        dropped, ungrounded = uniform[:, DROPOUT] < config.dropout, None
        if self.family.encoder:
            starts = step >= config.grounding_dropout_start
            joint = uniform[:, JOINT] < (config.joint_dropout if starts else 0.0)
            share = GROUNDING_DROPOUT if config.grounding_dropout is None else config.grounding_dropout
            ungrounded = (uniform[:, GROUNDING] < (share if starts else 0.0)) | joint
            dropped = dropped | joint
        condition = batch.condition
        if config.dropout or config.joint_dropout:
            null = batch.null
            if null is None:
                assert self.family.null is not None, "a batch of texts has a null condition"
                null = (self.family.null(self.params, 1),)
            condition = drop_condition(condition, null, dropped.to(batch.image.device, non_blocking=True))
        return condition if ungrounded is None else (*condition, ungrounded)

    def _call(self, x: Tensor, time: Tensor, condition: Parts) -> Tensor:
        """The network's prediction.

        Where no row is grounded, one more is, and counts nothing: each process of a run must call every part of the
        network, and every weight has a gradient, as it has where the batch is not split.
        """
        if not self.family.encoder or not condition[-1].all():
            return self.network(x, time, *condition)
        x, time, *parts = (torch.cat([part, part[:1]]) for part in (x, time, *condition[:-1]))
        predicted = self.network(x, time, *parts, F.pad(condition[-1], (0, 1)))
        return predicted[:-1] + 0 * predicted[-1:]

    def _is_aligned(self, step: int) -> bool:
        repa = self.config.repa
        return repa is not None and (repa.until is None or step < repa.until)

    @contextmanager
    def _recording(self, step: int) -> Iterator[None]:
        """Keep what parts of the loss need from inside the network."""
        with ExitStack() as stack:
            if self._is_aligned(step):
                stack.enter_context(self.patches.recording())
            if self.pixel_maps is not None:
                stack.enter_context(self.pixel_maps.recording())
            yield

    def _alignment(self, image: Tensor, step: int) -> Tensor:
        config = self.config.repa
        assert config is not None and self.projector is not None
        if not self._is_aligned(step):
            return image.new_zeros(len(image))
        tokens, grid = self.patches.take_patches((image.shape[2], image.shape[3]))
        with torch.no_grad():
            features, features_grid = self.teacher((to_signed(self.params, image) + 1) / 2, grid)
        projected = self.projector(tokens[: len(image)], grid)  # without the row that counts nothing
        with _float32(image):
            return alignment_loss(projected, grid, features, features_grid, config)

    def weights(self) -> dict[str, Tensor]:
        """What is trained, by its name in files: parameters and buffers, or the pairs of a LoRA alone."""
        tensors = {_file_name(name): tensor for name, tensor in _tensors(self.network)}
        pairs = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
        return pairs or {name: tensor for name, tensor in tensors.items() if not is_frozen(self.family, name)}

    def frozen_weights(self) -> dict[str, Tensor]:
        """What a file of the whole network has besides: those of a frozen encoder. Of a LoRA, nothing."""
        tensors = {_file_name(name): tensor for name, tensor in _tensors(self.network)}
        is_lora = any(".lora_" in name for name in tensors)
        return {name: tensor for name, tensor in tensors.items() if is_frozen(self.family, name) and not is_lora}

    @property
    def may_leave_out_parameters(self) -> bool:
        """Whether a backward pass may give some parameters no gradient, which DDP must know.

        The last text-to-image block has weights for a text that no image depends on.
        """
        ends = self.config.repa is not None and self.config.repa.until is not None
        return ends or any(getattr(module, "updates_text", True) is False for module in self.network.modules())


def _check(model: Model, config: ObjectiveConfig) -> None:
    """Raises ValueError for an objective that is not for this family."""
    path = model.family.path(model.params)
    if config.times == "integer" and not (path.counts_noise and path.time_scale == 1000):
        raise ValueError(
            f'objective.times is "integer", and {model.family.title} takes times from 0 to 1: choose logit_normal or '
            "uniform."
        )
    if model.family.encoder and not has_encoder(model):
        raise ValueError(
            f"{model.spec.source or 'the network'} is {model.family.title}, which looks at its own input through a "
            "frozen encoder, and has none: set model.encoder to its file."
        )
    if not model.family.encoder and (config.grounding_dropout or config.joint_dropout):
        raise ValueError(
            f"objective.grounding_dropout or joint_dropout is set, and {model.family.title} looks through no encoder: "
            "leave them out; they are for PixelDiT2."
        )
    if config.gamma_penalty and model.family.name != "pixelhdm":
        raise ValueError(
            f"objective.gamma_penalty is {config.gamma_penalty}, and {model.family.title} has no such scales: set it "
            "to 0; it is for PixelHDM."
        )


def _with_noise_level(family: Family, params: Any, level: float | None) -> Family:
    """The record with another lower bound of 1 - t; None = its own, which is next to nothing."""
    path = family.path(params)
    if level is not None:
        path = dataclasses.replace(path, min_noise_level=level)
    return dataclasses.replace(family, path=lambda _: path)


@contextmanager
def _float32(like: Tensor) -> Iterator[None]:
    with torch.autocast(like.device.type, enabled=False):
        yield


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _file_name(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
