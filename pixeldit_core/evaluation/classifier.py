"""A small CNN that judges samples independently: trained on images that no model was trained on, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.safetensors_file import read_safetensors
from ..checkpoints.save import write_tensors

FORMAT = "pixeldit-classifier"
_WIDTHS = (24, 48, 96, 128)
_SEED = 5_000_000
_LARGEST_SIDE = 1 << 16  # pixels
_EXPECTED = "Expected a .safetensors file that toy_data/classifier.py has written: choose it, or train one with that."


class Classifier(nn.Module):
    """Four strided convolutions, a mean over the image and a linear map to the logits of K classes.

    Images are [B, C, H, W], uint8 or float in [-1, 1]. It runs at any size; it was trained at `image_size`, which is
    (height, width).
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.in_channels, self.image_size = in_channels, image_size
        layers: list[nn.Module] = []
        for width, wider in zip((in_channels, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(_WIDTHS[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Mean over the image after the convolutions: float32 [B, 128]."""
        return self.convolutions(_to_float(images)).mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Features [B, 128] -> logits [B, K]."""
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.logits(self.features(images))

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Logits [N, K] of any number of images [N, C, H, W], without gradients and in eval mode."""
        self.eval()
        return torch.cat([self(part) for part in images.split(batch_size)])


def _to_float(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]; floats are in it already."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def train_classifier(
    images: Tensor, labels: Tensor, num_classes: int, epochs: int = 3, batch_size: int = 64, seed: int = _SEED
) -> Classifier:
    """Train on uint8 images [N, C, H, W] and labels [N]: mirrored, moved, with a little noise.

    Never on a model's samples: its verdict would follow from them. The same arguments give the same classifier, and
    torch's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(num_classes, images.shape[1], (images.shape[2], images.shape[3]))
        count, batch_size = len(images), min(batch_size, len(images))
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * (count // batch_size))
        for _ in range(epochs):
            for index in torch.randperm(count)[: count // batch_size * batch_size].split(batch_size):
                loss = F.cross_entropy(classifier(_augment(_to_float(images[index]))), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return classifier.eval()


def _augment(x: Tensor) -> Tensor:
    """Half of the batches mirrored, each moved by up to three pixels around its edges, and noise of std 0.05."""
    x = x.flip(3) if torch.rand(()) < 0.5 else x
    return x.roll(torch.randint(-3, 4, (2,)).tolist(), (2, 3)) + 0.05 * torch.randn_like(x)


def save_classifier(
    classifier: Classifier, path: str | Path, class_names: Sequence[str], about: Mapping[str, Any] | None = None
) -> Path:
    """Write a `.safetensors` file, atomically: weights, class names, channels and image size.

    Args:
        class_names: one of each class, all different, in the order of the logits.
        about: what else to record in the metadata (JSON values), such as {"held_out_accuracy": 0.998}.

    Raises:
        ValueError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    assert len(set(class_names)) == len(class_names) == classifier.head.out_features
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name}: only .safetensors is written; choose a name that ends so.")
    declared = {
        "class_names": list(class_names),
        "channels": classifier.in_channels,
        "image_size": list(classifier.image_size),
        **(about or {}),
    }
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in declared.items()}}
    return write_tensors({key: value.cpu() for key, value in classifier.state_dict().items()}, path, metadata)


def load_classifier(path: str | Path) -> tuple[Classifier, tuple[str, ...]]:
    """The classifier of a file, on the CPU and in eval mode, and its class names.

    Raises:
        ValueError: a missing file, another kind of file (of those, nothing is read but the header), damaged.
    """
    path = Path(path)
    _check_kind(path)
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        found = "a PixelDiT checkpoint" if "pixeldit" in metadata else "weights of something else"
        raise ValueError(f"{path.name} is {found}, not a classifier. {_EXPECTED}")
    class_names, channels, image_size = _read_declared(path, metadata)
    with torch.device("meta"):
        classifier = Classifier(len(class_names), channels, image_size)
    _check_tensors(path, tensors, classifier.state_dict())
    # clones: what is read is the mapped file, which would have to stay as it is
    classifier.load_state_dict({key: value.clone() for key, value in tensors.items()}, assign=True)
    return classifier.eval(), class_names


def _check_kind(path: Path) -> None:
    """Raises ValueError unless it starts as a `.safetensors` file does."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. {_EXPECTED}")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] != b"{":
        raise ValueError(f"{path.name} is not a .safetensors file (it starts with {head!r}). {_EXPECTED}")


def _read_declared(path: Path, metadata: Mapping[str, str]) -> tuple[tuple[str, ...], int, tuple[int, int]]:
    """Class names, number of channels and image size of a file's metadata."""
    try:
        class_names, channels, image_size = (
            json.loads(metadata[key]) for key in ("class_names", "channels", "image_size")
        )
        names_fit = bool(class_names) and all(isinstance(name, str) for name in class_names)
        height, width = image_size
        sizes_fit = all(type(side) is int and 0 < side < _LARGEST_SIDE for side in (height, width))
        if not (names_fit and isinstance(class_names, list) and sizes_fit and channels in (1, 3)):
            raise ValueError("a value of another kind")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is a damaged classifier: its class names, channels or image size are not readable "
            f"({str(error)[:200]}). Get the file again, or train it again."
        ) from error
    return tuple(class_names), channels, (height, width)


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless there is each tensor, of its shape and dtype, with finite values, and no other."""
    wrong = sorted(tensors.keys() ^ expected.keys())
    for key in tensors.keys() & expected.keys():
        value, like = tensors[key], expected[key]
        if (value.shape, value.dtype) != (like.shape, like.dtype) or not value.isfinite().all():
            wrong.append(key)
    if wrong:
        raise ValueError(
            f"{path.name} is a damaged classifier: {wrong[0][:80]} is missing, unexpected, of another shape or not "
            f"finite ({len(wrong)} such tensors). Get the file again, or train it again."
        )
