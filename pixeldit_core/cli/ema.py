"""`ema`: the average of a run's weights, of any length, after the run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .options import add_encoder_option, dtype_option

_EXAMPLES = """\
examples:
  python -m pixeldit_core ema runs/animals --length 0.1
      runs/animals/model-ema-0.100.safetensors
  python -m pixeldit_core ema runs/animals --length 0.05 --step 20000 --out short.safetensors --dtype fp16

The length is the standard deviation of the average's profile, relative to the steps up to there: 0.05 averages mostly
over the last seventh of them, 0.1 over the last third (arXiv 2312.02696). Runs whose recipe has average.power keep what
this needs.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `ema` to the command line."""
    parser = commands.add_parser(
        "ema",
        help="make an average of any length of a training run's weights",
        description="Reconstructs a power-function average from the snapshots of a run.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--length", type=float, required=True, metavar="L", help="above 0 and below 0.28, such as 0.1")
    parser.add_argument("--step", type=int, metavar="N", help="a step with snapshots (default: the last)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: RUN/model-ema-LENGTH[-STEP].safetensors)")
    parser.add_argument(
        "--dtype", type=dtype_option("fp32", "bf16", "fp16"), metavar="fp32|bf16|fp16", help="precision (default: fp32)"
    )
    add_encoder_option(parser, default="that of RUN/model.safetensors")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(options: argparse.Namespace) -> int:
    """Reconstruct; returns the exit status."""
    from ..training.run_folder import RunFolder, step_name
    from ..training.snapshots import reconstruct

    end = "" if options.step is None else f"-{step_name(options.step)}"
    out = options.out or options.folder / f"model-ema-{options.length:.3f}{end}.safetensors"
    if out.exists() and not options.force:
        raise ValueError(f"{out} exists. Add --force to replace it, or give another name.")
    folder = RunFolder(options.folder)
    encoder = options.encoder or folder.encoder
    made = reconstruct(folder.snapshots, options.length, out, options.step, options.dtype, encoder)
    sys.stdout.write(
        f"{made.path}\nlength {options.length:g} at step {made.step}, from {made.count} snapshots; "
        f"error of the profile {made.error:.1%}\n"
    )
    return 0
