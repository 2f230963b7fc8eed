"""Values that options take, and words for what the commands tell."""

from __future__ import annotations

import argparse
import re
from typing import Any

import torch

from ..dtypes import DTYPES, dtype_name
from ..model import Model
from ..settings import SamplingSettings

_DTYPES = DTYPES | {"fp8": torch.float8_e4m3fn}
_LARGEST_SEED = 2**64 - 1
_MOST_SEEDS = 1_000_000


def dtype_option(*names: str) -> Any:
    """A converter from one of `names`, or torch's own name of the same, to a dtype."""

    def convert(text: str) -> torch.dtype:
        for name in names:
            if text in (name, dtype_name(_DTYPES[name])):
                return _DTYPES[name]
        raise argparse.ArgumentTypeError(f'"{text}" is not one of {", ".join(names)}')

    return convert


def parse_seeds(text: str) -> list[int]:
    """Numbers from a list such as "0-7, 42", each once."""
    seeds: list[int] = []
    for entry in filter(None, re.split(r"[,;\s]+", re.sub(r"\s*-\s*", "-", text.strip()))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", entry)
        if not match:
            raise argparse.ArgumentTypeError(f'"{entry}" is not a seed; write numbers and ranges, such as 0-7,42')
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise argparse.ArgumentTypeError(f'"{entry}" runs backwards; write {last}-{first}')
        if last > _LARGEST_SEED or last - first >= _MOST_SEEDS:
            raise argparse.ArgumentTypeError(f'"{entry}" is too much; seeds go up to 2^64 - 1, a range to a million')
        seeds.extend(range(first, last + 1))
    if not seeds:
        raise argparse.ArgumentTypeError("there is no seed; write numbers and ranges, such as 0-7,42")
    return list(dict.fromkeys(seeds))


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT or one number for both -> height, width."""
    match = re.fullmatch(r"(\d+)(?:\s*[xX]\s*(\d+))?", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write WIDTHxHEIGHT, such as 320x256, or one number')
    return int(match[2] or match[1]), int(match[1])


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is an accelerator if there is one, else the CPU.

    Raises:
        ValueError: torch cannot use it here.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device "{name}" cannot be used here ({reason}). Try --device cpu.') from error
    return device


def describe_settings(settings: SamplingSettings) -> str:
    """Settings in one line."""
    low, high = settings.cfg_interval
    size = f", {settings.size[1]} x {settings.size[0]} pixels" if settings.size else ""
    return (
        f"{settings.steps} steps, {settings.solver}, cfg {settings.cfg:g} for t in {low:g} to {high:g}, "
        f"timeshift {settings.timeshift:g}{size}"
    )


def class_name(model: Model, index: int) -> str:
    """ "207: golden retriever", or what there is of it."""
    if index == model.params.num_classes:
        return f"{index}: no class"
    return f"{index}: {model.class_names[index][0]}" if model.class_names else str(index)


def table(rows: dict[str, Any]) -> str:
    """Lines of a name and a value."""
    width = max(map(len, rows)) + 2
    return "".join(f"  {name.ljust(width)}{value}\n" for name, value in rows.items())
