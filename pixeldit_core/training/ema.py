"""Moving averages of the weights: exponential ones of fixed decay, and power functions (power_ema.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .config import AverageConfig
from .power_ema import beta, gamma_of

Tensors = dict[str, Tensor]


class Averages:
    """Averages of a network's tensors, beside it and never inside.

    Each is a dictionary of float32 tensors by name, on the network's device: a share of a tensor where the network has
    one (FSDP). Integers are copied. An average starts as a copy of the weights.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: AverageConfig) -> None:
        self.decays = {decay: _copy(weights) for decay in config.decays}
        self.power = {length: _copy(weights) for length in config.power}

    @property
    def main(self) -> Tensors:
        """The one of the first decay: for samples and checkpoints."""
        return next(iter({**self.decays, **self.power}.values()))

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> bool:
        """After optimizer step number `step`, counted from 1.

        Returns False, with all averages as they were, if a weight is not finite: finite gradients can make such weights
        where the learning rate is far too high. Finding out reads the weights once and waits once for the device.
        """
        if not _all_finite(weights):
            return False
        for decay, average in self.decays.items():
            _lerp(average, weights, 1 - decay)
        for length, average in self.power.items():
            _lerp(average, weights, 1 - beta(gamma_of(length), step))
        return True

    def state_dict(self) -> Tensors:
        """All averages in one dictionary, each under a name of its own."""
        return {f"{name}/{key}": tensor for name, average in self._named() for key, tensor in average.items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse; whole tensors are split as this object's are.

        Raises:
            KeyError: another average, or another network.
            RuntimeError: a tensor of another shape.
        """
        expected = self.state_dict()
        if tensors.keys() != expected.keys():
            missing = sorted(tensors.keys() ^ expected.keys())
            raise KeyError(f"{len(missing)} averages are missing or unknown, such as {missing[0]}")
        for name, tensor in expected.items():
            if tensor.shape != tensors[name].shape:  # before any changes; copy_ would broadcast
                raise RuntimeError(f"{name} is {list(tensors[name].shape)}, expected {list(tensor.shape)}")
        for name, tensor in expected.items():
            tensor.copy_(_distribute(tensors[name], tensor))

    def _named(self) -> list[tuple[str, Tensors]]:
        decays = [(f"decay-{decay}", average) for decay, average in self.decays.items()]
        return decays + [(f"power-{length}", average) for length, average in self.power.items()]


def _copy(weights: Mapping[str, Tensor]) -> Tensors:
    return {
        name: tensor.detach().to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.detach().clone()
        for name, tensor in weights.items()
    }


def _all_finite(weights: Mapping[str, Tensor]) -> bool:
    floating = [tensor.detach() for tensor in weights.values() if tensor.is_floating_point()]
    norm: Any = torch.nn.utils.get_total_norm(floating)
    return bool((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).isfinite())


def _lerp(average: Tensors, weights: Mapping[str, Tensor], share: float) -> None:
    floating = [name for name, tensor in average.items() if tensor.is_floating_point()]
    current = [weights[name].detach().float() for name in floating]
    torch._foreach_lerp_([average[name] for name in floating], current, share)  # pyright: ignore
    for name, tensor in average.items():
        if not tensor.is_floating_point():
            tensor.copy_(weights[name])


def _distribute(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, split as `like` is if it is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]
