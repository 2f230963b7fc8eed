"""An independent judge: a small CNN that learned the drawings and names the class of a model's samples.

python -m pixeldit_core.training.judge models/pixeldit-drawings-64.safetensors
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import class_condition, load_checkpoint, sample, to_uint8
from .drawings import CLASS_NAMES, draw_many

log = logging.getLogger(__name__)

JUDGE_SEED = 5_000_000  # its drawings are none that a model was trained on
HELD_OUT_SEED = 6_000_000


def to_input(pictures: np.ndarray) -> Tensor:
    """uint8 [B,H,W,3] to float [B,3,H,W] in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Judge(nn.Module):
    """Four strided convolutions and a mean over the picture: [B,3,64,64] in [-1,1] to class scores [B,K]."""

    def __init__(self, num_classes: int = len(CLASS_NAMES)):
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for i, o in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [B,K]."""
        return self.head(self.features(x).mean((2, 3)))

    @torch.no_grad()
    def name(self, pictures: np.ndarray) -> np.ndarray:
        """The class number of each picture: uint8 [B,H,W,3] -> [B]."""
        self.eval()
        parts = np.array_split(pictures, -(-len(pictures) // 256))
        return torch.cat([self(to_input(part)).argmax(1) for part in parts]).numpy()


def train_judge(count: int = 12_000, rounds: int = 3, seed: int = JUDGE_SEED, workers: int = 0) -> Judge:
    """A judge trained on drawings of its own: mirrored, moved, with a little noise; never on a model's samples."""
    pictures, labels = draw_many(count, seed, workers=workers)
    torch.manual_seed(seed)
    judge = Judge()
    batch = 64
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=rounds * (count // batch))
    for _ in range(rounds):
        for index in torch.randperm(count)[: count // batch * batch].split(batch):
            x = to_input(pictures[index.numpy()])
            x = x.flip(3) if torch.rand(()) < 0.5 else x
            x = x.roll(tuple(torch.randint(-3, 4, (2,)).tolist()), (2, 3)) + 0.05 * torch.randn_like(x)
            loss = F.cross_entropy(judge(x), torch.from_numpy(labels)[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


def confusion(judge: Judge, pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts [K,K]: row = the class asked for, column = the class the judge names."""
    table = np.zeros((len(CLASS_NAMES),) * 2, np.int64)
    np.add.at(table, (labels, judge.name(pictures)), 1)
    return table


def report(table: np.ndarray) -> str:
    """Accuracy per class and in total, with what the others were taken for; Markdown."""
    lines = ["| class | samples | named right | taken for |", "|---|---|---|---|"]
    for i, name in enumerate(CLASS_NAMES):
        wrong = ", ".join(f"{CLASS_NAMES[j]} {n}" for j, n in enumerate(table[i]) if n and j != i)
        lines.append(f"| {name} | {table[i].sum()} | {table[i, i] / max(1, table[i].sum()):.1%} | {wrong} |")
    lines.append(f"| all | {table.sum()} | {np.trace(table) / table.sum():.1%} | |")
    return "\n".join(lines)


def sample_pictures(path: Path, count: int, batch: int = 50, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a checkpoint with its own settings, class i modulo K with seed i: uint8 [count,H,W,3] and labels.

    settings (steps, cfg, ...) go to `pixeldit_core.sample` and replace the settings's.
    """
    model = load_checkpoint(path)
    labels = np.arange(count) % len(CLASS_NAMES)
    pictures = []
    for start in range(0, count, batch):
        part = labels[start : start + batch]
        state = sample(
            model,
            class_condition(model, part.tolist()),
            seeds=range(start, start + len(part)),
            size=(64, 64),
            **settings,
        )
        pictures.append(np.asarray(to_uint8(model, state)))
        log.info("%d of %d samples", start + len(part), count)
    return np.concatenate(pictures), labels


def main(argv: list[str] | None = None) -> None:
    """Trains the judge, tests it on drawings it never saw and lets it name a checkpoint's samples."""
    parser = argparse.ArgumentParser(prog="python -m pixeldit_core.training.judge", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a model trained on the drawings")
    parser.add_argument(
        "--samples", type=int, default=1000, help="pictures to judge, as many of each class (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw (%(default)s)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    judge = train_judge(workers=options.workers)
    held_out = confusion(judge, *draw_many(2400, HELD_OUT_SEED, workers=options.workers))
    sys.stdout.write(f"drawings the judge never saw: {np.trace(held_out) / held_out.sum():.2%}\n")
    table = confusion(judge, *sample_pictures(options.checkpoint, options.samples, steps=options.steps))
    sys.stdout.write(report(table) + "\n")


if __name__ == "__main__":
    main()
