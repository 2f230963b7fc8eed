"""`encode`: the captions of a data set, once, for training."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from ..families import find_family
from ..training.text_encoder import ENCODERS
from .options import choose_device, dtype_option, positive

_EXAMPLES = """\
examples:
  python -m pixeldit_core encode photos --encoder Qwen/Qwen3-0.6B --family pixelhdm --out states
      every caption of a folder of images with text files, and the empty one
  python -m pixeldit_core encode photos prompts.txt --encoder google/gemma-2-2b-it --family pixeldit_t2i \\
      --instruction instruction.txt --out states
      these and the lines of a file, such as prompts of the sample sheet

The same command again encodes only what is new. Train with data.text_states=FOLDER.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `encode` to the command line."""
    parser = commands.add_parser(
        "encode",
        help="encode captions for training a text-to-image network",
        description="Writes the states of a text encoder for all captions of a data set.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "data",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="folders of images with text files, shards (train-{0000..0099}.tar), or .txt files of captions",
    )
    parser.add_argument("--encoder", required=True, metavar="NAME", help="a folder or hub model for transformers")
    parser.add_argument("--family", required=True, choices=list(ENCODERS), help="of the network")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write to, or to add to")
    parser.add_argument(
        "--instruction",
        metavar="FILE|none",
        help="text that is put before every caption, for pixeldit_t2i: that of the published network to fine-tune it",
    )
    parser.add_argument("--default-caption", metavar="TEXT", help="of images without one (default: an error)")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of a caption (default: the family's)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="captions at a time (default: 32)")
    parser.add_argument(
        "--dtype",
        type=dtype_option("bf16", "fp16", "fp32"),
        default="bf16",
        metavar="bf16|fp16|fp32",
        help="of the encoder and of the states (default: bf16)",
    )
    parser.add_argument("--device", default="auto", help="such as cuda:1 or cpu (default: auto)")


def run(options: argparse.Namespace) -> int:
    """Encode; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from ..training.encode import encode

    instruction = _read_instruction(options.instruction, options.family)
    try:
        sys.stdout.write(
            encode(
                options.data,
                options.encoder,
                options.family,
                options.out,
                instruction=instruction,
                default_caption=options.default_caption,
                max_tokens=options.max_tokens,
                batch_size=options.batch_size,
                device=choose_device(options.device),
                dtype=options.dtype,
            )
        )
    except ImportError as error:
        raise ValueError(str(error)) from error
    return 0


def _read_instruction(name: str | None, family: str) -> str:
    """The text of a file without line breaks at its end; spaces there count."""
    if "mask" in find_family(family).text_parts:
        if name not in (None, "none"):
            raise ValueError(f"--instruction is {name}, and {family} takes captions as they are: leave it out.")
        return ""
    if name is None:
        raise ValueError(
            "--instruction is missing. The published text-to-image network was trained with an instruction before "
            "every caption, and ComfyUI adds it to prompts: name a file with its text to fine-tune that network or to "
            "sample in ComfyUI, or write --instruction none for plain captions."
        )
    return "" if name == "none" else Path(name).read_text(encoding="utf-8").rstrip("\r\n")
