"""`convert`: from any readable checkpoint to one .safetensors file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..checkpoints.inspect import inspect_checkpoint
from ..checkpoints.layouts import LAYOUTS
from ..checkpoints.save import save_checkpoint
from ..dtypes import dtype_name
from .options import add_encoder_option, add_weights_option, dtype_option, lora_option
from .text import encoder_row, table

_EXAMPLES = """\
examples:
  python -m pixeldit_core convert imagenet256_pixeldit_xl_epoch320.ckpt pixeldit-256.safetensors --dtype bf16
      only the averaged weights: 1.6 GB
  python -m pixeldit_core convert pixeldit-256.safetensors for-comfyui.safetensors --layout comfyui
  python -m pixeldit_core convert trained.ckpt raw.safetensors --weights raw
  python -m pixeldit_core convert pixeldit2_h16_in256_ep600.ckpt whole.safetensors --encoder dinov3/model.safetensors
      a PixelDiT2 with its frozen encoder inside, so that one file is enough
  python -m pixeldit_core convert pixeldit_t2i_v1.pth mine.safetensors --lora style.safetensors=0.8

Params, class names, settings and the SHA-256 of the source are written into the file's metadata.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `convert` to the command line."""
    parser = commands.add_parser(
        "convert",
        help="rewrite a checkpoint with other key names, precision or weights",
        description="Writes the network of a checkpoint as one .safetensors file. Pickled code is never executed.",
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
        help="names of the tensors: the network's, or as ComfyUI's save nodes write them (default: canonical)",
    )
    parser.add_argument(
        "--dtype",
        type=dtype_option("fp32", "bf16", "fp16", "fp8"),
        metavar="fp32|bf16|fp16|fp8",
        help="precision; fp8 applies to the large matrices, the rest becomes bf16 (default: unchanged)",
    )
    add_weights_option(parser)
    add_encoder_option(parser, "; none leaves it out of TARGET, FILE puts it in", default="as SOURCE has it")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        type=lora_option,
        metavar="FILE[=STRENGTH]",
        help="merge a LoRA into the weights (default strength: 1); may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")


def run(options: argparse.Namespace) -> int:
    """Convert; returns the exit status."""
    if os.path.exists(options.target) and not options.force:
        raise ValueError(f"{options.target} exists. Add --force to replace it, or give another name.")
    save_checkpoint(
        options.source,
        options.target,
        options.layout,
        options.dtype,
        weights=options.weights,
        loras=options.lora,
        encoder=options.encoder,
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
                **encoder_row(info.encoder),
                "dtype": info.quantization or (dtype_name(info.dtype) if info.dtype else "unknown"),
                "size": f"{size / 1e6:,.1f} MB",
            }
        )
    )
    return 0
