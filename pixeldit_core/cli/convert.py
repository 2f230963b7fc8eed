"""`convert`: from any readable checkpoint to one .safetensors file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..checkpoints.inspect import inspect_checkpoint
from ..checkpoints.layouts import LAYOUTS
from ..checkpoints.save import save_checkpoint
from ..dtypes import dtype_name
from .options import dtype_option, table

_EXAMPLES = """\
examples:
  python -m pixeldit_core convert imagenet256_pixeldit_xl_epoch320.ckpt pixeldit-256.safetensors --dtype bf16
      the averaged weights alone: 1.6 GB
  python -m pixeldit_core convert pixeldit-256.safetensors for-comfyui.safetensors --layout comfyui
  python -m pixeldit_core convert trained.ckpt raw.safetensors --weights raw
  python -m pixeldit_core convert pixeldit_t2i_v1.pth mine.safetensors --lora style.safetensors=0.8

Params, class names and settings are written into the file, and the SHA-256 of what it was made from.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `convert` to the command line."""
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint anew: other names, precision or weights",
        description="Writes the network of a checkpoint as one .safetensors file. Nothing runs from pickled files.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a .safetensors, .ckpt or .pth file, or a diffusers folder"
    )
    parser.add_argument("target", type=Path, metavar="TARGET", help="the .safetensors file to write")
    parser.add_argument(
        "--layout",
        choices=list(LAYOUTS),
        default="canonical",
        help="names of the tensors: the network's own, or as ComfyUI's save nodes write them (default: canonical)",
    )
    parser.add_argument(
        "--dtype",
        type=dtype_option("fp32", "bf16", "fp16", "fp8"),
        metavar="fp32|bf16|fp16|fp8",
        help="precision; fp8 is for the large matrices, the rest is bf16 then (default: as it is)",
    )
    parser.add_argument(
        "--weights",
        choices=["auto", "ema", "raw"],
        default="auto",
        help="averaged (ema) or raw ones, where a file has both (default: what the authors used)",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        type=_lora_option,
        metavar="FILE[=STRENGTH]",
        help="merge a LoRA into the weights (default strength: 1); may be given several times",
    )
    parser.add_argument("--force", action="store_true", help="replace TARGET if it is there")


def _lora_option(text: str) -> tuple[Path, float]:
    """FILE or FILE=STRENGTH; the name of a file may have an equals sign of its own."""
    name, _, strength = text.rpartition("=")
    try:
        return Path(name or text), float(strength) if name else 1.0
    except ValueError:
        return Path(text), 1.0


def run(options: argparse.Namespace) -> int:
    """Convert; gives the exit status."""
    if options.target.exists() and not options.force:
        raise ValueError(f"{options.target} is there already. Add --force to replace it, or give another name.")
    save_checkpoint(
        options.source, options.target, options.layout, options.dtype, weights=options.weights, loras=options.lora
    )
    info = inspect_checkpoint(options.target)
    size = options.target.stat().st_size
    sys.stdout.write(
        f"{options.target}\n"
        + table(
            {
                "from": options.source,
                "layout": options.layout,
                "parameters": f"{info.count:,}",
                "dtype": info.quantization or dtype_name(info.dtype),
                "size": f"{size / 1e6:,.1f} MB",
            }
        )
    )
    return 0
