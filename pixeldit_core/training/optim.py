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
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return [_adamw(named, config)]
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"Muon needs torch 2.9 or newer, and this is torch {torch.__version__}: choose adamw.")
    matrices, others = split_parameters(named)
    muon = torch.optim.Muon(
        [parameter for _, parameter in matrices],
        config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw(others, config)] if others else [muon]


def split_parameters(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[Named, Named]:
    """The matrices inside of blocks, and all other parameters."""
    matrices, others = [], []
    for name, parameter in named:
        (matrices if parameter.ndim == 2 and "blocks." in name else others).append((name, parameter))
    return matrices, others


def _adamw(named: Named, config: OptimConfig) -> Optimizer:
    """Weight decay is for matrices, unless `decay_norms`: norms, biases and tables keep their size."""
    decayed = [p for name, p in named if config.decay_norms or (p.ndim >= 2 and "embed" not in name)]
    kept = [p for name, p in named if not (config.decay_norms or (p.ndim >= 2 and "embed" not in name))]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], config.learning_rate, config.betas, config.eps, fused=True
    )
