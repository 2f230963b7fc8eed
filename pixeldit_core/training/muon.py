"""Muon: momentum whose matrices are orthogonalized before the step (Jordan et al. 2024; step size of arXiv 2502.16982).

On this network it needs about a third of the steps that AdamW does, which is what makes an hour on a CPU enough.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # steep at 0: five rounds take singular values of 0.01..1 to about 0.7..1.2
ROUNDS = 5


def orthogonalize(matrices: list[Tensor]) -> list[Tensor]:
    """Each [m,n] with its singular values moved to about 1; float32.

    The Newton-Schulz polynomial of X is X * q(X^T X), so the rounds run on the small Gram matrices alone, all of one
    size in one batched product; the large matrices are multiplied twice.
    """
    matrices = [m / (m.norm() + 1e-12) for m in matrices]
    grams = [m.mT @ m if m.shape[0] >= m.shape[1] else m @ m.mT for m in matrices]
    groups = defaultdict(list)
    for i, gram in enumerate(grams):
        groups[gram.shape[0]].append(i)
    out: list[Tensor] = [None] * len(matrices)
    for size, members in groups.items():
        stack = torch.stack([grams[i] for i in members])
        factors = _polynomial(stack, torch.eye(size, device=stack.device))
        for i, factor in zip(members, factors, strict=True):
            m = matrices[i]
            out[i] = m @ factor if m.shape[0] >= m.shape[1] else factor @ m
    return out


def _polynomial(gram: Tensor, identity: Tensor) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    total = None
    for _ in range(ROUNDS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        total = step if total is None else total @ step
        gram = step @ gram @ step
    return total


class Muon(torch.optim.Optimizer):
    """For weight matrices of hidden layers; everything else belongs to AdamW. Uses AdamW's learning rates."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on the gradients that are there."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            looked_ahead = []
            for p in parameters:
                if "average" not in self.state[p]:
                    self.state[p]["average"] = torch.zeros_like(p)
                average = self.state[p]["average"]
                average.lerp_(p.grad, 1 - group["momentum"])
                looked_ahead.append(p.grad.lerp(average, group["momentum"]))  # Nesterov
            for p, update in zip(parameters, orthogonalize(looked_ahead), strict=True):
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)  # the root mean square of an AdamW step


def split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices inside the blocks (for Muon), and the rest (for AdamW)."""
    matrices, rest = [], []
    for name, parameter in network.named_parameters():
        (matrices if parameter.ndim == 2 and "_blocks." in name else rest).append(parameter)
    return matrices, rest
