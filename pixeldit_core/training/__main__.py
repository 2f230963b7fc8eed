"""Train a bundled model on an image folder.

python toy_data/drawings.py data/drawings
python -m pixeldit_core.training --model drawings --data data/drawings --out drawings.safetensors
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from ..checkpoints.save import save_checkpoint
from ..model import Model
from .bundled import BUNDLED
from .image_folder import read_image_folder
from .initialize import initialize
from .trainer import OnStep, TrainingSettings, train

log = logging.getLogger(__name__)

_LOG_EVERY = 50  # steps


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pixeldit_core.training",
        description="Trains a bundled model from scratch on an image folder, FOLDER/<class>/*.png, as toy_data/ writes "
        "them, and writes it as one .safetensors file: 30 to 60 minutes on two CPU cores. Set "
        "OMP_WAIT_POLICY=PASSIVE if other programs use the cores as well.",
    )
    parser.add_argument("--model", choices=list(BUNDLED), required=True, help="which network and training settings")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the image folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: the model's)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per step (default: 64)")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="the highest (default: 3e-3)")
    parser.add_argument("--seed", type=int, metavar="N", help="of weights, order and noise (default: the model's)")
    parser.add_argument("--save-every", type=int, default=250, metavar="N", help="write after N steps (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", default=None, help="no torch.compile")
    parser.add_argument("--no-bfloat16", dest="bfloat16", action="store_false", default=None, help="float32 only")
    return parser.parse_args(argv)


def _settings(default: TrainingSettings, options: argparse.Namespace) -> TrainingSettings:
    names = ("steps", "batch_size", "learning_rate", "seed", "compile", "bfloat16")
    given = {name: getattr(options, name) for name in names}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def main(argv: Sequence[str] | None = None) -> None:
    """The command: read, train, write."""
    options = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    bundled = BUNDLED[options.model]
    settings = _settings(bundled.training, options)
    images, labels = read_image_folder(options.data, bundled.class_names, bundled.params.in_channels)
    model = bundled.build()
    torch.manual_seed(settings.seed)
    initialize(model)
    count = sum(parameter.numel() for parameter in model.network.parameters())
    log.info("%d images in %s, %.2f M parameters", len(images), options.data, count / 1e6)
    train(model, images, labels, settings, _report(model, settings, options.out, options.save_every))


def _report(model: Model, settings: TrainingSettings, path: Path, save_every: int) -> OnStep:
    """After each step: log now and then, and write the average of the weights."""
    losses: list[float] = []
    started = time.monotonic()

    def on_step(step: int, loss: float, average: AveragedModel) -> None:
        losses.append(loss)
        if step % _LOG_EVERY == 0:
            speed = step * settings.batch_size / (time.monotonic() - started)
            log.info("step %d loss %.4f, %.0f images/s", step, sum(losses[-_LOG_EVERY:]) / _LOG_EVERY, speed)
        if step % save_every == 0 or step == settings.steps:
            save_checkpoint(Model(model.spec, average.module), path, dtype=torch.float16)

    return on_step


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
