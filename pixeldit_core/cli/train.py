"""`train`: from a recipe to a checkpoint."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  python -m pixeldit_core train recipes/toy-digits.yaml
      handwritten digits from drawn ones, in some minutes on a CPU, into runs/toy-digits
  python -m pixeldit_core train recipes/my-images.yaml data.path=photos engine.steps=20000 --out runs/photos
  python -m pixeldit_core train --resume runs/photos
      go on where a run stopped
  accelerate launch --num_processes 8 -m pixeldit_core train recipes/imagenet256-xl.yaml data.path=/data/imagenet/train
  python -m pixeldit_core train recipes/imagenet256-xl.yaml --dry-run
      network, parameters, memory and the work of a step, without training

Each setting of a recipe can be overridden with key=value; docs/training.md lists them.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `train` to the command line."""
    parser = commands.add_parser(
        "train",
        help="train or fine-tune a network on images",
        description="Trains the network of a recipe and writes checkpoints that sample and ComfyUI load.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE", help="a YAML file, such as those in recipes/")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings over the recipe's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the run (default: runs/NAME OF THE RECIPE)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run of this folder")
    parser.add_argument("--dry-run", action="store_true", help="print what the run would be, and end")


def run(options: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it names every file that it saves
    from ..training.command import describe, resume, start

    overrides: list[str] = list(options.overrides)
    recipe: Path | None = options.recipe
    if recipe is not None and options.resume is not None and "=" in str(recipe):
        overrides.insert(0, str(recipe))  # the first override of a resumed run
        recipe = None
    if options.resume is not None and recipe is None:
        source: Path = options.resume
        text = describe(source / "recipe.yaml", overrides) if options.dry_run else resume(source, overrides)
    elif recipe is not None and options.resume is None:
        text = describe(recipe, overrides) if options.dry_run else start(recipe, overrides, options.out)
    else:
        raise ValueError("name either a recipe to start, or a run to go on with: --resume RUN.")
    sys.stdout.write(text)
    return 0
