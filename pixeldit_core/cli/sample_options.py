"""Options of `sample`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..families import CONVENTIONS, FAMILIES
from ..flow.solvers import SOLVERS
from .options import add_weights_option, dtype_option, parse_seeds, parse_size, positive

CHECKPOINT_DEFAULT = "checkpoint default"  # the settings in the file's metadata, as in PixelDiT Sampler
PUBLISHED = tuple(
    dict.fromkeys(name for family in FAMILIES.values() if family.condition == "class" for name in family.settings)
)
ALL_CLASSES_UP_TO = 20

EXAMPLES = """\
examples:
  python -m pixeldit_core sample
      one image of every class of the bundled model
  python -m pixeldit_core sample imagenet256_pixeldit_xl_epoch320.ckpt --classes "1, 207, 250-253, tabby cat"
      the checkpoint's published settings, one image of each class
  python -m pixeldit_core sample model.ckpt --classes 207 --seeds 0-15 --steps 50 --cfg 4 --out dogs
      sixteen images of one class, faster and with stronger guidance
  python -m pixeldit_core sample imagenet512_pixeldit_xl.ckpt --size 640x512 --dtype bf16 --device cuda

Class, seed and settings decide an image: it is the same alone or in a batch. Files of the same name are replaced.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint and all options to the parser of `sample`."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="a .safetensors, .ckpt or .pth file (default: the bundled model)",
    )
    _add_images(parser.add_argument_group("images"))
    _add_settings(parser.add_argument_group("sampling (default: the checkpoint's settings, else the published ones)"))
    _add_computation(parser.add_argument_group("computation"))


def _add_images(group: Any) -> None:
    group.add_argument(
        "--classes",
        metavar="LIST",
        help='numbers, ranges and names, such as "1, 207, 250-253, tabby cat" (default: all if there are at most '
        f"{ALL_CLASSES_UP_TO}, else eight)",
    )
    group.add_argument(
        "--seeds",
        type=parse_seeds,
        default=[0],
        metavar="LIST",
        help="numbers and ranges, such as 0-7,42; one image of each class per seed (default: 0)",
    )
    group.add_argument(
        "--size",
        type=parse_size,
        metavar="WIDTHxHEIGHT",
        help="pixels, or one number for a square (default: the trained size)",
    )
    group.add_argument(
        "--out", type=Path, default=Path("output"), metavar="FOLDER", help="folder to write to (default: output)"
    )


def _add_settings(group: Any) -> None:
    group.add_argument(
        "--settings",
        choices=[CHECKPOINT_DEFAULT, *PUBLISHED],
        metavar="NAME",
        help=f'settings by name: {", ".join(PUBLISHED)}, or "{CHECKPOINT_DEFAULT}" for those in the file; the options '
        "below override single values",
    )
    group.add_argument("--steps", type=int, metavar="N", help="more is finer and slower; 20 to 100 are usual")
    group.add_argument(
        "--solver", choices=list(SOLVERS), help="ab2 is the published one; heun_exact costs twice as much"
    )
    group.add_argument(
        "--cfg",
        type=float,
        metavar="SCALE",
        help="guidance scale: 1 is none, 2 to 4 usual; more is stronger and less varied",
    )
    group.add_argument(
        "--cfg-interval",
        type=float,
        nargs=2,
        metavar=("START", "END"),
        help="guide only between these times (0 = noise, 1 = image); steps outside cost half",
    )
    group.add_argument(
        "--timeshift", type=float, metavar="SHIFT", help="above 1: more of the steps near the noise; 1 = uniform"
    )
    group.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="standard: correct ODE sampling; reference: reproduces the original program exactly, quirks included "
        "(the same for the official models; default: standard)",
    )


def _add_computation(group: Any) -> None:
    group.add_argument("--device", default="auto", help='"cpu", "cuda", "mps" ... (default: an accelerator if any)')
    group.add_argument(
        "--dtype",
        type=dtype_option("fp32", "bf16", "fp16"),
        default=torch.float32,
        metavar="fp32|bf16|fp16",
        help="of the weights and the network; bf16 halves the memory and changes images slightly (default: fp32)",
    )
    add_weights_option(group)
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="images at a time; fewer need less memory (default: by size)"
    )
