"""Optimizers of a run."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from .config import OptimConfig

Named = list[tuple[str, nn.Parameter]]


def build_optimizers(module: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """AdamW for all trainable parameters; or Muon for the matrices of the blocks and AdamW for the rest.

    Muon takes steps of AdamW's size (arXiv 2502.16982), so that one learning rate serves both.

    Raises:
        ImportError: a torch without Muon.
        ValueError: nothing to train.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError("no weight of the network is to be trained; check lora.targets.")
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    if config.optimizer == "adamw":
        return [_adamw(named, tables, config)]
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"Muon needs torch 2.9 or newer, and this is torch {torch.__version__}: choose adamw.")
    matrices, others = split_parameters(named)
    optimizers: list[Optimizer] = [_muon(matrices, config)] if matrices else []
    return [*optimizers, _adamw(others, tables, config)] if others else optimizers


def split_parameters(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[Named, Named]:
    """The matrices inside of blocks, and all other parameters."""
    matrices, others = [], []
    for name, parameter in named:
        (matrices if parameter.ndim == 2 and "blocks." in name else others).append((name, parameter))
    return matrices, others


def _muon(matrices: Named, config: OptimConfig) -> Optimizer:
    return torch.optim.Muon(
        [parameter for _, parameter in matrices],
        config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )


def _adamw(named: Named, tables: set[int], config: OptimConfig) -> Optimizer:
    """Weight decay is for weights of linear layers and convolutions, unless `decay_norms`.

    Norms, biases, gates, embedding and position tables keep their size.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in named:
        is_weight = parameter.ndim >= 2 and name.endswith("weight") and id(parameter) not in tables
        (decayed if is_weight or config.decay_norms else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    rate, betas = config.learning_rate, config.betas
    try:
        return torch.optim.AdamW(groups, rate, betas, config.eps, fused=True)
    except RuntimeError:  # not for this device
        return torch.optim.AdamW(groups, rate, betas, config.eps)
