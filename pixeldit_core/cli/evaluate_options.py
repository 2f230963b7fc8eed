"""Options of `evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..settings import SETTINGS
from .options import lora_option, positive
from .sampling_options import add_computation, add_settings, add_size

COUNT = 50_000
EXAMPLES = """\
examples:
  accelerate launch --num_processes 8 -m pixeldit_core evaluate imagenet256_pixeldit_xl_epoch320.ckpt \\
      --settings imagenet256-epoch320 --out samples --npz
      50,000 images, 50 of each class, into samples/images/ and samples/samples.npz; the same command continues
  python -m pixeldit_core evaluate --score samples --reference VIRTUAL_imagenet256_labeled.npz \\
      --extractor-weights weights-inception-2015-12-05-6726825d.pth
      FID, sFID, Inception Score, precision and recall, into samples/score.json
  python -m pixeldit_core evaluate model.safetensors --count 5000 --out sweep --reference data/held-back \\
      --extractor-weights inception.pth --sweep cfg=2:4:0.25 interval_end=0.8,0.9,1
      a score for every combination, as a table and a plot
  python -m pixeldit_core evaluate --reference data/held-back --save-statistics held-back.npz --extractor-weights W
      statistics of images, to score against without reading them again

Image k has its class and seed by k alone: the number of processes and machines changes nothing. docs/evaluation.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options to the parser of `evaluate`."""
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="to generate with; a run's folder to sweep ema"
    )
    _add_images(parser.add_argument_group("images"))
    _add_score(parser.add_argument_group("score"))
    add_settings(parser, tuple(SETTINGS))
    add_computation(parser)
    parser.add_argument(
        "--autocast", action="store_true", help="matrix products in bfloat16 with float32 weights, as published"
    )
    parser.add_argument(
        "--lora", action="append", default=[], type=lora_option, metavar="FILE[=STRENGTH]", help="add a LoRA"
    )


def _add_images(group: Any) -> None:
    group.add_argument(
        "--count", type=positive, default=COUNT, metavar="N", help=f"of images (default: {COUNT:,}); may grow later"
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of the images, and of their score")
    group.add_argument(
        "--classes", metavar="LIST", help='such as "1, 207, 250-253, tabby cat": image k has class k modulo '
        "their number (default: all)",
    )  # fmt: skip
    group.add_argument("--labels", type=Path, metavar="FILE", help="one class a line; image k has that of line k")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="for text-to-image: one prompt a line")
    group.add_argument("--text-states", type=Path, metavar="DIR", help="of the prompts, which the command encode wrote")
    group.add_argument("--first-seed", type=int, default=0, metavar="S", help="image k has seed S + k (default: 0)")
    group.add_argument("--unbalanced", action="store_true", help="allow counts that do not divide into the classes")
    add_size(group)
    group.add_argument("--npz", action="store_true", help="write samples.npz too, as the ADM suite takes it")
    group.add_argument("--npz-only", action="store_true", help="and remove the PNG files then")
    group.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N",
        help="make part I of N only: machines that share the folder and nothing else",
    )  # fmt: skip


def _add_score(group: Any) -> None:
    group.add_argument(
        "--score", type=Path, metavar="DIR", help="score these images (a folder or .npz) in place of generating some"
    )
    group.add_argument(
        "--reference", type=Path, metavar="X", help="folder of images, ADM reference .npz, or saved statistics"
    )
    group.add_argument(
        "--extractor", default="inception", metavar="NAME",
        help="inception (the ADM protocol's, default), classifier, vgg16, or one registered with torch-fidelity",
    )  # fmt: skip
    group.add_argument("--extractor-weights", type=Path, metavar="FILE", help="nothing is downloaded")
    group.add_argument(
        "--crop-reference", action="store_true", help="scale and center-crop a folder of references to the samples"
    )
    group.add_argument("--save-statistics", type=Path, metavar="FILE", help="write statistics of the reference (.npz)")
    group.add_argument(
        "--sweep", nargs="+", metavar="KEY=VALUES",
        help="cfg, interval_start, interval_end, steps, timeshift, solver, ema: lists 2,2.5,3 or ranges 2:4:0.25",
    )  # fmt: skip
    group.add_argument("--keep-images", action="store_true", help="of a sweep; they can be made again from their seeds")


def _shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (1, 4)."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f'"{text}" is not a part such as 2/4: the second of four')
    return int(part) - 1, int(parts)
