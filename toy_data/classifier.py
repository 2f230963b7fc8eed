"""An independent classifier: a small CNN trained on an image folder that classifies a model's samples.

python toy_data/drawings.py data/classifier --count 14400 --seed 5000000
python toy_data/classifier.py models/pixeldit-drawings-64.safetensors --data data/classifier
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import pixeldit_core as pc

log = logging.getLogger(__name__)

_SEED = 5_000_000
_HELD_OUT = 6  # one image in so many
_WIDTHS = (24, 48, 96, 128)


def read_images(folder: Path, names: Sequence[str], channels: int) -> tuple[Tensor, Tensor]:
    """All images FOLDER/<class>/*.png of one size: uint8 [N, H, W, C], and their labels [N]."""
    files = [(path, label) for label, name in enumerate(names) for path in sorted((folder / name).glob("*.png"))]
    if not files:
        raise ValueError(f"{folder} has no images {names[0]}/*.png. Make some, for example with toy_data/drawings.py.")
    pixels = [np.array(Image.open(path).convert("RGB" if channels == 3 else "L")) for path, _ in files]
    images = torch.from_numpy(np.stack(pixels))
    return images.view(*images.shape[:3], channels), torch.tensor([label for _, label in files])


def to_input(images: Tensor) -> Tensor:
    """uint8 [B, H, W, C] -> float [B, C, H, W] in [-1, 1]."""
    return images.movedim(-1, 1).float() / 127.5 - 1


class Classifier(nn.Module):
    """Four strided convolutions and a mean over the image: [B, C, H, W] in [-1, 1] -> logits [B, K]."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, wider in zip((in_channels, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.head(self.features(x).mean((2, 3)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The class of each image: uint8 [B, H, W, C] -> [B]."""
        self.eval()
        return torch.cat([self(to_input(part)).argmax(1) for part in images.split(256)])


def train_classifier(
    images: Tensor, labels: Tensor, num_classes: int, epochs: int = 3, seed: int = _SEED
) -> Classifier:
    """Train on images [N, H, W, C] and labels [N]: mirrored, moved, with a little noise; never on a model's samples."""
    torch.manual_seed(seed)
    classifier = Classifier(num_classes, images.shape[-1])
    count = len(images)
    batch = min(64, count)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (count // batch))
    for _ in range(epochs):
        for index in torch.randperm(count)[: count // batch * batch].split(batch):
            x = to_input(images[index])
            x = x.flip(3) if torch.rand(()) < 0.5 else x
            x = x.roll(torch.randint(-3, 4, (2,)).tolist(), (2, 3)) + 0.05 * torch.randn_like(x)
            loss = F.cross_entropy(classifier(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts [K, K]: row = label, column = predicted class."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def report(matrix: Tensor, names: Sequence[str]) -> str:
    """Accuracy per class and in total, and what the others were classified as; Markdown."""
    lines = ["| class | samples | correct | classified as |", "|---|---|---|---|"]
    for index, (name, row) in enumerate(zip(names, matrix.tolist(), strict=True)):
        wrong = ", ".join(f"{names[j]} {count}" for j, count in enumerate(row) if count and j != index)
        lines.append(f"| {name} | {sum(row)} | {row[index] / max(1, sum(row)):.1%} | {wrong} |")
    return "\n".join([*lines, f"| all | {matrix.sum()} | {accuracy(matrix):.1%} | |"])


def accuracy(matrix: Tensor) -> float:
    """The share of correct predictions."""
    return (matrix.trace() / matrix.sum()).item()


def sample_images(model: pc.Model, count: int, batch_size: int = 50, **settings: Any) -> tuple[Tensor, Tensor]:
    """Samples uint8 [count, H, W, C] and labels: class i modulo K with seed i; settings (steps, cfg) go to `sample`."""
    labels = torch.arange(count) % model.params.num_classes
    images = []
    for seeds in torch.arange(count).split(batch_size):
        condition = pc.class_condition(model, labels[seeds].tolist())
        images.append(pc.to_uint8(model, pc.sample(model, condition, seeds=seeds.tolist(), **settings)))
        log.info("%d of %d samples", seeds[-1] + 1, count)
    return torch.cat(images), labels


def main(argv: Sequence[str] | None = None) -> None:
    """Train the classifier, test it on held-out images and let it classify a checkpoint's samples."""
    parser = argparse.ArgumentParser(
        description="Trains a small CNN on an image folder that the model was not trained on, and reports how many of "
        "the model's samples it assigns to the class that was asked for.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a class-conditional model")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="an image folder of its classes")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="images to sample (%(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps (default: the checkpoint's)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = pc.load_checkpoint(options.checkpoint)
    if not model.class_names:
        raise ValueError(f"{options.checkpoint} has no class names to look for in the image folder.")
    names = [entry[0] for entry in model.class_names]
    images, labels = read_images(options.data, names, model.params.in_channels)
    held_out = torch.arange(len(images)) % _HELD_OUT == 0
    classifier = train_classifier(images[~held_out], labels[~held_out], len(names))
    held = confusion_matrix(labels[held_out], classifier.predict(images[held_out]), len(names))
    sys.stdout.write(f"held-out images: {accuracy(held):.2%}\n")
    samples, labels = sample_images(model, options.samples, steps=options.steps)
    sys.stdout.write(report(confusion_matrix(labels, classifier.predict(samples), len(names)), names) + "\n")


if __name__ == "__main__":
    main()
