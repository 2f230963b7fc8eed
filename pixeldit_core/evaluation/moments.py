"""Mean and covariance of features, summed up in float64, so that order and batches do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Statistics:
    """A Gaussian: mean float64 [D] and covariance float64 [D, D]."""

    mu: np.ndarray
    sigma: np.ndarray

    def as_dict(self) -> dict[str, np.ndarray]:
        """As torch-fidelity takes it."""
        return {"mu": self.mu, "sigma": self.sigma}


class Moments:
    """Sums of features [D] and of their products, of any number of images.

    The sums are taken around the first batch's mean: no digits cancel where features are large and vary little.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Another batch [B, D]."""
        features = features.cpu().double()  # some devices have no float64
        if self._origin is None:
            self._origin = features.mean(0)
            self._sum = torch.zeros_like(self._origin)
            self._products = features.new_zeros(features.shape[1], features.shape[1])
        around = features - self._origin
        self.count += len(features)
        self._sum += around.sum(0)
        self._products.addmm_(around.T, around)

    def statistics(self) -> Statistics:
        """Mean and unbiased covariance.

        Raises:
            ValueError: fewer than two images.
        """
        if self.count < 2 or self._origin is None:
            raise ValueError(f"statistics need at least 2 images; there {'is' if self.count else 'are'} {self.count}.")
        mean = self._sum / self.count
        sigma = (self._products - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return Statistics((self._origin + mean).cpu().numpy(), sigma.cpu().numpy())
