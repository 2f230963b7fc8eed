"""The flow-matching objective: t in [0, 1], 0 = noise, 1 = image.

Pure functions; random numbers are arguments, so that a test or a golden case can supply its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..families.record import NetworkCall
from ..flow.path import FlowPath
from ..flow.times import shift_time


def logit_normal_times(normal: Tensor, timeshift: float = 1.0) -> Tensor:
    """Times in (0, 1) from normal numbers of any shape: most of them in the middle of the path."""
    return shift_time(torch.sigmoid(normal), timeshift)


def drop_labels(labels: Tensor, uniform: Tensor, probability: float, null_label: int) -> Tensor:
    """Labels [B], the null class where `uniform` [B] in [0, 1) is below the probability (classifier-free guidance)."""
    return torch.where(uniform < probability, null_label, labels)


def flow_matching_loss(
    network: NetworkCall, path: FlowPath, image: Tensor, noise: Tensor, t: Tensor, *condition: Tensor
) -> Tensor:
    """Mean squared error of the velocity, a scalar (paper, section 3.1).

    Both velocities come from predictions, the network's and the target; so an image prediction weighs
    1 / max(1 - t, path.min_noise_level)^2 (spec: xpred, 5).

    Args:
        network: called as network(x_t, its own time [B], *condition).
        image, noise: [B, C, H, W]; the image in the model's range, the noise of unit variance.
        t: [B].
    """
    x = path.interpolate(image, noise, t)
    prediction = network(x, path.network_time(t), *condition)
    target = path.target(image, noise)
    return (path.velocity(prediction.to(x), x, t) - path.velocity(target, x, t)).square().mean()
