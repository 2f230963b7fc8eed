"""The random numbers of an objective: each image's are a function of its own seed alone.

So they do not depend on the batch that an image is in, or on the processes that share a global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNIFORMS = 4  # of each image: its time, then one for each kind of dropping
TIME, DROPOUT, GROUNDING, JOINT = range(UNIFORMS)  # columns of them
_NOISE, _NUMBERS = 1, 2  # streams of a seed


@dataclass
class Draws:
    """Random numbers for B images."""

    noise: Tensor  #   [B, C, H, W], standard normal
    normal: Tensor  #  [B], standard normal
    uniform: Tensor  # [B, 4], in [0, 1), on the CPU: what is dropped can be asked without waiting for the device


def draw(seeds: Tensor, shape: Sequence[int], device: torch.device | str) -> Draws:
    """Draws for images of `shape` [C, H, W] with seeds int64 [B], on a device.

    The noise is drawn on the device, so it differs between kinds of devices; the other numbers do not.
    """
    noise = torch.empty(len(seeds), *shape, device=device)
    normal, uniform = torch.empty(len(seeds)), torch.empty(len(seeds), UNIFORMS)
    on_device, on_cpu = torch.Generator(device), torch.Generator()
    for row, seed in enumerate(seeds.tolist()):
        noise[row].normal_(generator=on_device.manual_seed(mix(seed, _NOISE)))
        on_cpu.manual_seed(mix(seed, _NUMBERS))
        normal[row : row + 1].normal_(generator=on_cpu)
        uniform[row].uniform_(generator=on_cpu)
    return Draws(noise, normal.to(device, non_blocking=True), uniform)


def mix(seed: int, stream: int) -> int:
    """The seed, in [0, 2**63), of one of the independent streams of a seed (SplitMix64).

    Every bit depends on every bit of the seed: CPU generators look at the lowest 32 only.
    """
    value = (seed + stream * 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return (value ^ value >> 31) >> 1
