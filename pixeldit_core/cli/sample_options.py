"""Options of `sample`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..families import FAMILIES
from .options import parse_seeds
from .sampling_options import add_computation, add_settings, add_size

PUBLISHED = tuple(
    dict.fromkeys(name for family in FAMILIES.values() if family.condition == "class" for name in family.settings)
)
ALL_CLASSES_UP_TO = 20

EXAMPLES = """\
examples:
  python -m pixeldit_core sample
      two images each of twelve classes of the bundled model
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
    add_settings(parser, PUBLISHED)
    add_computation(parser)


def _add_images(group: Any) -> None:
    group.add_argument(
        "--classes",
        metavar="LIST",
        help='numbers, ranges and names, such as "1, 207, 250-253, tabby cat" (default: all if there are at most '
        f"{ALL_CLASSES_UP_TO}, else eight; of the bundled model twelve)",
    )
    group.add_argument(
        "--seeds",
        type=parse_seeds,
        metavar="LIST",
        help="numbers and ranges, such as 0-7,42; one image of each class per seed (default: 0; 0-1 with the bundled "
        "model and no --classes)",
    )
    add_size(group)
    group.add_argument(
        "--out", type=Path, default=Path("output"), metavar="FOLDER", help="folder to write to (default: output)"
    )
