"""The flow-matching objective: t in [0, 1], 0 = noise, 1 = image.

Pure functions; random numbers are arguments, so that a test or a golden case can supply its own. Losses are per image,
[B], so that a caller decides what each image counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow.path import FlowPath
from ..flow.times import TimeRange, shift_time

TABLE_SIZE = 1000  # noise levels of text-to-image training

Parts = tuple[Tensor, ...]  # of a condition


def logit_normal_times(
    normal: Tensor,
    timeshift: float = 1.0,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    time_range: TimeRange = (0.0, 1.0),
) -> Tensor:
    """Times from standard normal numbers of any shape: most of them in the middle of the path, or of `time_range`."""
    return _within(time_range, shift_time(torch.sigmoid(mean + std * normal), timeshift))


def uniform_times(uniform: Tensor, timeshift: float = 1.0, *, time_range: TimeRange = (0.0, 1.0)) -> Tensor:
    """Times from numbers in [0, 1) of any shape."""
    return _within(time_range, shift_time(uniform, timeshift))


def integer_times(
    normal: Tensor, timeshift: float = 1.0, *, mean: float = 0.0, std: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Times float32 [B] and the network's own, int64 [B], of the official text-to-image training (spec: official, 7).

    Standard normal numbers [B] choose entries of `integer_table`.
    """
    index = (TABLE_SIZE * torch.sigmoid(mean + std * normal)).long().clamp(max=TABLE_SIZE - 1)
    sigmas, network_times = (table.to(normal.device, non_blocking=True)[index] for table in integer_table(timeshift))
    return 1 - sigmas, network_times


@lru_cache
def integer_table(timeshift: float = 1.0) -> tuple[Tensor, Tensor]:
    """Shares of noise from 0 to almost 1, float32 [1000], and 1000 times them, truncated to int64 [1000].

    Computed as published: with i / 1000 in place of the differences, one of the integers would be another.
    """
    share = 1 - torch.linspace(1, 0.001, TABLE_SIZE, dtype=torch.float64)
    sigmas = timeshift * share / (1 + (timeshift - 1) * share)
    return sigmas.float(), (TABLE_SIZE * sigmas).long()


def _within(time_range: TimeRange, t: Tensor) -> Tensor:
    low, high = time_range
    return t if (low, high) == (0.0, 1.0) else low + (high - low) * t


def drop_condition(condition: Parts, null: Parts, dropped: Tensor) -> Parts:
    """A condition with rows replaced by the null condition's, for classifier-free guidance.

    Args:
        condition: (labels [B],), or (states [B, T, D], mask [B, T], pooled [B, D]) of texts, or the first of these;
            in general any parts of B rows.
        null: the same parts with one row each; a text may have another number of tokens.
        dropped: bool [B]; or [B, parts], if each part is dropped on its own.

    Raises:
        ValueError: texts without a mask, and a null text of fewer tokens.
    """
    if condition[0].ndim == 3:
        condition, null = _same_length(condition, null)
    columns = dropped.unbind(1) if dropped.ndim == 2 else [dropped] * len(condition)
    return tuple(
        torch.where(column.view(-1, *[1] * (part.ndim - 1)), empty.to(part, non_blocking=True), part)
        for part, empty, column in zip(condition, null, columns, strict=True)
    )


def _same_length(text: Parts, null: Parts) -> tuple[Parts, Parts]:
    """Two texts at the longer one's length where a mask covers padding; else the null text is cut.

    An encoder that reads from left to right has the same states for the tokens that stay.
    """
    length = text[0].shape[1]
    if len(text) > 1:
        longest = max(length, null[0].shape[1])
        return _pad(text, longest), _pad(null, longest)
    if null[0].shape[1] < length:
        raise ValueError(
            f"the encoding of the empty caption has {null[0].shape[1]} tokens and captions have {length}, which this "
            "model cannot mask. Encode both with the same padding."
        )
    return text, (null[0][:, :length],)


def _pad(text: Parts, length: int) -> Parts:
    """Padding that the mask of (states, mask, ...) excludes, after the text."""
    more = length - text[0].shape[1]
    return (F.pad(text[0], (0, 0, 0, more)), F.pad(text[1], (0, more)), *text[2:]) if more else text


def noisy(path: FlowPath, image: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t on the path from noise to image, and the velocity there, which a network should predict: [B, C, H, W].

    Both velocities, the network's and this one, come from predictions; so an error of an image prediction weighs
    1 / max(1 - t, path.min_noise_level) (spec: xpred, 5).

    Args:
        image, noise: [B, C, H, W]; the image in the model's range, the noise of unit variance.
        t: [B].
    """
    x = path.interpolate(image, noise, t)
    return x, path.velocity(path.target(image, noise), x, t)


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the velocity of each image, [B] (paper, section 3.1)."""
    return (predicted - target).square().flatten(1).mean(1)


def gamma_penalty(maps: Sequence[Tensor], batch: int) -> Tensor:
    """Squared scales of PixelHDM's pixel blocks, [B] (spec: pixelhdm, 3.9).

    Args:
        maps: of each block [B * L, P, 6 * C], gamma, beta and alpha of both branches.
    """
    gammas = (part.float().unflatten(-1, (6, -1))[..., (0, 3), :].unflatten(0, (batch, -1)) for part in maps)
    return torch.stack([gamma.square().mean((1, 2, 4)).sum(1) for gamma in gammas]).sum(0)
