"""Classifier accuracy: how many images are of the class that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..labels import Names


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share, 0 to 1, of rows of logits [N, K] whose largest value is at the label [N]."""
    return (logits.argmax(1) == labels).double().mean().item()


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts [K, K] from labels [N] and predicted classes [N]: row = label, column = predicted."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def report(matrix: Tensor, class_names: Sequence[str]) -> str:
    """A confusion matrix [K, K] as a Markdown table: accuracy per class and in total, and what else was predicted."""
    lines = ["| class | samples | correct | classified as |", "|---|---|---|---|"]
    for index, (name, row) in enumerate(zip(class_names, matrix.tolist(), strict=True)):
        wrong = ", ".join(f"{class_names[j]} {count}" for j, count in enumerate(row) if count and j != index)
        lines.append(f"| {name} | {sum(row)} | {row[index] / max(1, sum(row)):.1%} | {wrong} |")
    correct = matrix.trace().item() / max(1, int(matrix.sum()))
    return "\n".join([*lines, f"| all | {matrix.sum()} | {correct:.1%} | |"])


def match_labels(labels: Tensor, names: Names | None, class_names: Sequence[str]) -> Tensor:
    """Labels [N] of a model as labels of a classifier, which may have its classes in another order.

    Args:
        names: of the model's classes; None = it has none, and its classes are taken to be in the classifier's order.
        class_names: of the classifier.

    Raises:
        ValueError: a label of a class that the classifier does not have.
    """
    position = {name: index for index, name in enumerate(class_names)}
    matched = {}
    for label in labels.unique().tolist():
        entry = names[label] if names else class_names[label : label + 1]
        found = [position[name] for name in entry if name in position]
        if not found:
            raise ValueError(
                f"class {label} of the model ({entry[0] if entry else 'without a name'}) is not a class of the "
                f"classifier, which has {', '.join(class_names[:12])}{' ...' if len(class_names) > 12 else ''}. Train "
                "one on images of the model's classes, in folders of their names."
            )
        matched[label] = found[0]
    return torch.tensor([matched[label] for label in labels.tolist()], dtype=torch.int64)
