"""A small trainer: rectified flow on pictures in memory, Muon and AdamW, an average of the weights, nothing else."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .losses import drop_labels, flow_matching_loss, logit_normal_times, noisy_sample
from .muon import Muon, split_parameters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a training run, together with the network and the pictures."""

    steps: int = 3400
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 50  # steps of linear rise
    decay: float = 0.4  # the part of all steps, at the end, in which the rate falls to 0
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.998
    label_dropout: float = 0.1
    timeshift: float = 1.0
    time_mean: float = 0.0  # of the normal numbers that times come from: below 0, more of them near the noise
    time_spread: float = 1.0
    flip: bool = True  # mirror half of the pictures
    bfloat16: bool = True  # matrix products in bfloat16; weights and optimizer stay float32
    compile: bool = True
    seed: int = 0


class Ema:
    """Exponential moving average of a network's parameters, float32; its warm-up forgets the first steps soon."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.state = {name: p.detach().clone().float() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """One step: average <- decay * average + (1-decay) * parameter, decay at most (1+n)/(10+n) after n updates."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        parameters = dict(network.named_parameters())
        torch._foreach_lerp_(list(self.state.values()), [parameters[name] for name in self.state], 1 - decay)


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, a plateau, then a straight line to 0."""
    rise = (step + 1) / settings.warmup
    fall = (settings.steps - step) / (settings.decay * settings.steps)
    return settings.learning_rate * max(0.0, min(1.0, rise, fall))


def _batches(
    pictures: np.ndarray, labels: np.ndarray, settings: TrainingSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: image [B,C,H,W] float32 in [-1,1] and label [B]; every picture once per round."""
    while True:
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - settings.batch + 1, settings.batch):
            index = np.sort(order[start : start + settings.batch])
            image = torch.from_numpy(pictures[index]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            if settings.flip:
                mirrored = torch.from_numpy(rng.random(len(index)) < 0.5).view(-1, 1, 1, 1)
                image = torch.where(mirrored, image.flip(3), image)
            yield image.contiguous(), torch.from_numpy(labels[index])


def train(
    network: nn.Module,
    pictures: np.ndarray,
    labels: np.ndarray,
    settings: TrainingSettings,
    on_step: Callable[[int, float, Ema], None] | None = None,
    velocity: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Ema:
    """Trains the network in place and returns the average of its weights.

    pictures [N,H,W,C] uint8, labels [N] in 0..num_classes-1; the network is called as network(x, t, label) and its null
    class is number `num_classes`. on_step(step, loss, ema) is called after every step, counted from 1. `velocity` makes
    one of (network, x, t, label) where the network predicts something else.
    """
    if len(pictures) < settings.batch:
        raise ValueError(f"{len(pictures)} pictures do not fill a batch of {settings.batch}")
    torch.manual_seed(settings.seed)
    network.requires_grad_(True).train()
    null_label = network.params.num_classes
    matrices, rest = split_parameters(network)
    optimizers = (
        Muon(matrices, lr=settings.learning_rate),
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=settings.betas, weight_decay=0.0, fused=True),
    )
    ema = Ema(network, settings.ema)
    device = next(network.parameters()).device.type
    predict = velocity or (lambda network, *arguments: network(*arguments))

    def loss_of(image: Tensor, noise: Tensor, times: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=settings.bfloat16):
            found = predict(network, noisy_sample(image, noise, times), times, label)
        return flow_matching_loss(found.float(), image, noise)

    if settings.compile:
        loss_of = torch.compile(loss_of)
    batches = _batches(pictures, labels, settings, np.random.default_rng(settings.seed))
    started = time.monotonic()
    for step in range(1, settings.steps + 1):
        image, label = next(batches)
        normal = settings.time_mean + settings.time_spread * torch.randn(len(image))
        times = logit_normal_times(normal, settings.timeshift)
        label = drop_labels(label, torch.rand(len(image)), settings.label_dropout, null_label)
        loss = loss_of(image, torch.randn_like(image), times, label)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step - 1, settings)
            optimizer.step()
            optimizer.zero_grad()
        ema.update(network)
        if on_step is not None:
            on_step(step, loss.item(), ema)
    log.info("%d steps in %.0f s", settings.steps, time.monotonic() - started)
    return ema
