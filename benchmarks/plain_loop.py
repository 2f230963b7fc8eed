"""A training step as a plain PyTorch loop: benchmarks/train.py --against benchmarks/plain_loop.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def make_step(
    network: nn.Module, pixels: Tensor, labels: Tensor, micro_batch: int, bfloat16: bool
) -> Callable[[], Tensor]:
    """A function that trains `network` for one step on the batch, and returns the loss.

    Velocity flow matching with logit-normal times, label dropout, AdamW, clipping and one average in float32.

    Args:
        pixels: uint8 [B, 3, H, W]; labels: [B]; both on the device of the network.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    count = len(pixels)
    null = network.params.num_classes

    def step() -> Tensor:
        total = torch.zeros((), device=pixels.device)
        for rows, classes in zip(pixels.split(micro_batch), labels.split(micro_batch), strict=True):
            image = rows / 127.5 - 1
            noise = torch.randn_like(image)
            t = torch.sigmoid(torch.randn(len(rows), device=image.device))
            x = torch.lerp(noise, image, t.view(-1, 1, 1, 1))
            classes = torch.where(torch.rand(len(rows), device=image.device) < 0.1, null, classes)
            with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
                velocity = network(x, t, classes)
            loss = (velocity.float() - (image - noise)).square().mean() * len(rows) / count
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [parameter.detach() for parameter in network.parameters()], 1e-4)
        return total

    return step
