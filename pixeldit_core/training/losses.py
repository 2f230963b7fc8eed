"""Rectified flow in the house's time: t in [0,1], 0 = noise, 1 = image.

Small pure functions; the random numbers are the caller's, so that a test or a golden file can supply its own.
"""

import torch
from torch import Tensor

from ..flow.times import shift_time


def logit_normal_times(normal: Tensor, timeshift: float = 1.0) -> Tensor:
    """Times in (0,1) from standard normal numbers of any shape: the middle of the path gets most of the work."""
    return shift_time(torch.sigmoid(normal), timeshift)


def noisy_sample(image: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = t * image + (1-t) * noise for image and noise [B,C,H,W] and times [B]."""
    t = times.view(-1, *[1] * (image.ndim - 1))
    return t * image + (1 - t) * noise


def flow_matching_loss(velocity: Tensor, image: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of a predicted velocity against dx_t/dt = image - noise, over everything: a scalar."""
    return (velocity - (image - noise)).square().mean()


def drop_labels(labels: Tensor, uniform: Tensor, probability: float, null_label: int) -> Tensor:
    """Labels [B] with the null class where `uniform` [B] in [0,1) is below the probability: what guidance subtracts."""
    return torch.where(uniform < probability, null_label, labels)
