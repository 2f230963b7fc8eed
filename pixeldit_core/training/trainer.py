"""A small trainer for class-conditional models: flow matching, Muon and AdamW, an average of the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..images import from_image
from ..model import Model
from .objective import drop_condition, logit_normal_times, noisy, squared_error

OnStep = Callable[[int, float, AveragedModel], None]


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a training run, together with the model and the images."""

    steps: int = 3400
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup: int = 50  #                       steps of linear warm-up
    decay: float = 0.4  #                     share of the steps, at the end, in which the learning rate falls to 0
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW
    momentum: float = 0.95  #                 of Muon
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998
    label_dropout: float = 0.1
    timeshift: float = 1.0
    time_mean: float = 0.0  #                 of the logit-normal times: below 0, more of them near the noise
    time_std: float = 1.0
    min_noise_level: float = 0.05  #          lower bound of the divisor 1 - t, for image predictions
    flip: bool = True  #                      mirror half of the images
    bfloat16: bool = True  #                  autocast; weights and optimizers stay float32
    compile: bool = True
    seed: int = 0


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, a plateau, then a linear decay to 0."""
    rise = (step + 1) / settings.warmup
    fall = (settings.steps - step) / (settings.decay * settings.steps)
    return settings.learning_rate * max(0.0, min(1.0, rise, fall))


def split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices inside the blocks (for Muon), and all other parameters (for AdamW)."""
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        (matrices if parameter.ndim == 2 and "_blocks." in name else others).append(parameter)
    return matrices, others


def build_optimizers(network: nn.Module, settings: TrainingSettings) -> tuple[Optimizer, Optimizer]:
    """Muon with AdamW's update size (arXiv 2502.16982) for the matrices of the blocks, AdamW for the rest.

    Raises:
        ImportError: a torch without Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"training needs torch>=2.9 for torch.optim.Muon; this is torch {torch.__version__}.")
    matrices, others = split_parameters(network)
    rate = settings.learning_rate
    return (
        torch.optim.Muon(matrices, rate, weight_decay=0.0, momentum=settings.momentum, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, rate, betas=settings.betas, weight_decay=0.0, fused=True),
    )


def train(
    model: Model, images: Tensor, labels: Tensor, settings: TrainingSettings, on_step: OnStep | None = None
) -> AveragedModel:
    """Train the network of a class-conditional model in place.

    Args:
        images: uint8 [N, H, W, C].
        labels: [N], 0 to num_classes - 1.
        on_step: called as (step, loss, average) after every step, counted from 1.

    Returns:
        The exponential moving average of the network, as its `module`.

    Raises:
        ValueError: fewer images than one batch has, or images of another number of channels.
    """
    if len(images) < settings.batch_size:
        raise ValueError(f"{len(images)} images do not fill a batch of {settings.batch_size}. Lower the batch size.")
    network = model.network.requires_grad_(True).train()
    optimizers = build_optimizers(network, settings)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    torch.manual_seed(settings.seed)
    loss_of = _objective(model, settings)
    batches = _batches(model, images, labels, settings)
    for step in range(1, settings.steps + 1):
        loss = loss_of(*next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step - 1, settings)
            optimizer.step()
            optimizer.zero_grad()
        average.update_parameters(network)
        if on_step is not None:
            on_step(step, loss.item(), average)
    return average


def _objective(model: Model, settings: TrainingSettings) -> Callable[..., Tensor]:
    """The loss of (image, noise, t, label), compiled if asked for."""
    path = dataclasses.replace(model.family.path(model.params), min_noise_level=settings.min_noise_level)

    def network(*arguments: Tensor) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.bfloat16):
            return model.network(*arguments)

    def loss_of(image: Tensor, noise: Tensor, t: Tensor, label: Tensor) -> Tensor:
        x, target = noisy(path, image, noise, t)
        return squared_error(path.velocity(network(x, path.network_time(t), label).to(x), x, t), target).mean()

    return torch.compile(loss_of) if settings.compile else loss_of


def _batches(model: Model, images: Tensor, labels: Tensor, settings: TrainingSettings) -> Iterator[tuple[Tensor, ...]]:
    """Endless (image, noise, t, label), each with `batch_size` rows; every image once per epoch."""
    size = settings.batch_size
    while True:
        for index in torch.randperm(len(images))[: len(images) // size * size].split(size):
            image = from_image(model, images[index])
            if settings.flip:
                image = torch.where(torch.rand(size, 1, 1, 1) < 0.5, image.flip(3), image)
            normal = settings.time_mean + settings.time_std * torch.randn(size)
            t = logit_normal_times(normal, settings.timeshift)
            null = torch.tensor([model.params.num_classes])
            (label,) = drop_condition((labels[index],), (null,), torch.rand(size) < settings.label_dropout)
            yield image, torch.randn_like(image), t, label
