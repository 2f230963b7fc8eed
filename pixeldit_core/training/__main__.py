"""Train the model in the box: a small PixelDiT on drawings that this package makes itself.

python -m pixeldit_core.training --out models/pixeldit-drawings-64.safetensors --seed 20260
"""

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from .. import Model, SamplingSettings, build_model, save_checkpoint
from ..families.pixeldit.params import PixelDiTParams
from .drawings import CLASS_NAMES, cached_drawings
from .initialize import initialize
from .trainer import Ema, TrainingSettings, train

log = logging.getLogger(__name__)

BOX = PixelDiTParams(
    hidden_size=192,
    num_groups=6,
    patch_depth=4,
    pixel_depth=1,
    patch_size=8,
    pixel_hidden_size=8,
    num_classes=len(CLASS_NAMES),
)  # 3.73 M parameters
BUNDLED_SETTINGS = SamplingSettings(
    steps=20, cfg=3.0, timeshift=1.0, cfg_interval=(0.0, 1.0), solver="ab2", size=(64, 64)
)
SETTINGS = TrainingSettings()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pixeldit_core.training",
        description="Draws small pictures of twelve kinds, trains a small class-conditional PixelDiT (64 x 64 pixels) "
        "on them with rectified flow and writes it as one safetensors file. No downloads; about an hour on two "
        "CPU cores. Set OMP_WAIT_POLICY=PASSIVE where other programs use the cores as well.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write; rewritten on the way")
    parser.add_argument("--seed", type=int, default=20260, help="decides the drawings, the first weights and all noise")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=SETTINGS.batch, help="pictures per step")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.learning_rate, help="highest learning rate")
    parser.add_argument("--pictures", type=int, default=36_000, help="how many drawings to make first")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "pixeldit-drawings",
        help="folder that keeps the drawings between runs",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--threads", type=int, default=0, help="threads of the training; 0 = torch's choice")
    parser.add_argument("--save-every", type=int, default=100, help="steps between two versions of the file")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile (needs no C++ compiler)")
    parser.add_argument("--no-bfloat16", action="store_true", help="multiply matrices in float32")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """The command: draw, train, write."""
    options = _options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = replace(
        SETTINGS,
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        compile=not options.no_compile,
        bfloat16=not options.no_bfloat16,
    )
    pool = options.cache / f"{options.pictures}-{options.seed}.npy"
    pictures, labels = cached_drawings(pool, options.pictures, options.seed, 64, options.workers)
    log.info("%d drawings in %s", len(pictures), pool)

    model = build_model("pixeldit", BOX, device="cpu")
    model.spec = replace(model.spec, class_names=[(name,) for name in CLASS_NAMES])
    model.spec = replace(model.spec, settings=BUNDLED_SETTINGS)
    torch.manual_seed(options.seed)
    initialize(model.network)
    log.info("%.2f M parameters", sum(p.numel() for p in model.network.parameters()) / 1e6)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    started = time.monotonic()

    def on_step(step: int, loss: float, ema: Ema) -> None:
        losses.append(loss)
        if step % 50 == 0:
            speed = step * settings.batch / (time.monotonic() - started)
            log.info("step %d loss %.4f %.0f pictures/s", step, sum(losses[-50:]) / 50, speed)
        if step % options.save_every == 0 or step == settings.steps:
            _save(model, ema, options.out)

    train(model.network, pictures, labels, settings, on_step)
    log.info("%s: %d steps of %d in %.0f s", options.out, settings.steps, settings.batch, time.monotonic() - started)


def _save(model: Model, ema: Ema, path: Path) -> None:
    raw = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    model.network.load_state_dict(ema.state)
    save_checkpoint(model, path, layout="canonical", dtype=torch.float16)
    model.network.load_state_dict(raw)


if __name__ == "__main__":
    main()
