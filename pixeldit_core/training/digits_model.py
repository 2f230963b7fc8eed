"""Train the second model in the box: a small x-prediction PixelDiT on digits that this package draws itself.

python -m pixeldit_core.training.digits_model --out models/pixeldit-digits-28.safetensors --seed 28
"""

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import SamplingSettings, build_model, save_checkpoint
from ..families.xpred.params import XPredParams
from .digits import draw_digits
from .initialize import initialize_xpred
from .trainer import Ema, TrainingSettings, train

log = logging.getLogger(__name__)

PARAMS = XPredParams(
    dim=96,
    depth=4,
    heads=3,
    dim_head=32,
    in_channels=1,
    image_size=28,
    qk_norm="rmsnorm",
    pixel_dim=16,
    pixel_depth=2,
    compress_ratio=4,
)
SETTINGS = SamplingSettings(steps=20, cfg=2.0, cfg_interval=(0.0, 1.0), solver="ab2", size=(28, 28))
CLOSEST = 0.05  # to the image: where the loss does not grow any more


def velocity(network: nn.Module, x: Tensor, times: Tensor, label: Tensor) -> Tensor:
    """From the image that the network predicts; near it divided by CLOSEST, for the loss would see little else."""
    rest = (1 - times).clamp(min=CLOSEST).view(-1, 1, 1, 1)
    image = network(x, times, label)
    return (image - x) / rest


def main(argv: list[str] | None = None) -> None:
    """The command: draw, train, write."""
    parser = argparse.ArgumentParser(
        prog="python -m pixeldit_core.training.digits_model",
        description="Draws handwritten digits, trains a small x-prediction PixelDiT (28 x 28 gray pixels) on them and "
        "writes it as one safetensors file. No downloads; half an hour on a CPU core or two.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write; rewritten on the way")
    parser.add_argument("--seed", type=int, default=28, help="decides the digits, the first weights and all noise")
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=64, help="pictures per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--pictures", type=int, default=60_000, help="how many digits to draw first")
    parser.add_argument("--threads", type=int, default=0, help="threads of the training; 0 = torch's choice")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile (needs no C++ compiler)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    pictures, labels = draw_digits(options.seed, options.pictures)
    settings = TrainingSettings(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        time_mean=-0.4,
        flip=False,
        seed=options.seed,
        compile=not options.no_compile,
    )
    model = build_model("xpred_pixeldit", PARAMS, device="cpu")
    model.spec = replace(model.spec, class_names=[(str(digit),) for digit in range(10)])
    model.spec = replace(model.spec, settings=SETTINGS)
    torch.manual_seed(options.seed)
    initialize_xpred(model.network)
    log.info("%.2f M parameters", sum(p.numel() for p in model.network.parameters()) / 1e6)
    losses: list[float] = []
    started = time.monotonic()

    def on_step(step: int, loss: float, ema: Ema) -> None:
        losses.append(loss)
        if step % 50 == 0:
            speed = step * settings.batch / (time.monotonic() - started)
            log.info("step %d loss %.4f %.0f pictures/s", step, sum(losses[-50:]) / 50, speed)
        if step % 250 == 0 or step == settings.steps:
            raw = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
            model.network.load_state_dict(ema.state)
            save_checkpoint(model, options.out, dtype=torch.float16)
            model.network.load_state_dict(raw)

    train(model.network, pictures.movedim(1, -1).numpy(), labels.numpy(), settings, on_step, velocity)


if __name__ == "__main__":
    main()
