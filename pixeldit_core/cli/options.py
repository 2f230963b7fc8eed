"""Values of options, and options that several commands have."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..dtypes import DTYPES, dtype_name, emulation_note

_DTYPES = DTYPES | {"fp8": torch.float8_e4m3fn}
_LARGEST_SEED = 2**64 - 1
_MOST_SEEDS = 1_000_000  # in a range


def add_weights_option(parser: Any) -> None:
    """Add `--weights` to a parser or group."""
    parser.add_argument(
        "--weights",
        default="auto",
        help="ema (averaged) or raw, or the name of one of the file's sets of weights as inspect lists them (default: "
        "auto, those that the authors sample with)",
    )


def add_encoder_option(
    parser: Any, also: str = "", default: str = "the one in the checkpoint, else the only one that fits beside it"
) -> None:
    """Add `--encoder` to a parser or group; `also` goes on with its explanation."""
    parser.add_argument(
        "--encoder",
        metavar="FILE|none",
        help=f"of a PixelDiT2: the file of its frozen DINOv3 encoder, or none{also} (default: {default})",
    )


def say_emulated(dtype: torch.dtype, device: torch.device) -> None:
    """A line on stderr for a dtype that the CPU emulates."""
    if note := emulation_note(dtype, device):
        sys.stderr.write(f"note: {note}: --dtype fp32\n")


def dtype_option(*names: str) -> Callable[[str], torch.dtype]:
    """A converter from one of `names`, or torch's name for it, to a dtype."""

    def convert(text: str) -> torch.dtype:
        for name in names:
            if text in (name, dtype_name(_DTYPES[name])):
                return _DTYPES[name]
        raise argparse.ArgumentTypeError(f'"{text}" is not one of {", ".join(names)}')

    return convert


def parse_seeds(text: str) -> list[int]:
    """Seeds of a list such as "0-7, 42", each once."""
    seeds: list[int] = []
    for entry in filter(None, re.split(r"[,;\s]+", re.sub(r"\s*-\s*", "-", text.strip()))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", entry)
        if not match:
            raise argparse.ArgumentTypeError(f'"{entry}" is not a seed; write numbers and ranges, such as 0-7,42')
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise argparse.ArgumentTypeError(f'"{entry}" is reversed; write {last}-{first}')
        if last > _LARGEST_SEED or last - first >= _MOST_SEEDS:
            raise argparse.ArgumentTypeError(
                f'"{entry}" is too large; seeds go up to 2^64 - 1, a range has at most a million'
            )
        seeds.extend(range(first, last + 1))
    if not seeds:
        raise argparse.ArgumentTypeError("no seed; write numbers and ranges, such as 0-7,42")
    return list(dict.fromkeys(seeds))


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT or one number for both -> height, width."""
    match = re.fullmatch(r"(\d+)(?:\s*[xX]\s*(\d+))?", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write WIDTHxHEIGHT, such as 320x256, or one number')
    return int(match[2] or match[1]), int(match[1])


def lora_option(text: str) -> tuple[Path, float]:
    """FILE or FILE=STRENGTH; file names may contain an equals sign."""
    name, _, strength = text.rpartition("=")
    try:
        return Path(name or text), float(strength) if name else 1.0
    except ValueError:
        return Path(text), 1.0


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" = an accelerator if available, else the CPU.

    Raises:
        ValueError: a device that torch cannot use here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device "{name}" cannot be used here ({reason}). Try --device cpu.') from error
    return device
