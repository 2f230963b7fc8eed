"""Options of sampling that several commands have, and the settings that they give."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from ..families import CONVENTIONS
from ..flow.guidance import check_interval
from ..flow.solvers import SOLVERS
from ..model import Model
from ..sampling import check_size, time_grid
from ..settings import SETTINGS, SamplingSettings
from ..sizes import Size
from .options import add_encoder_option, add_weights_option, dtype_option, parse_size, positive

CHECKPOINT_DEFAULT = "checkpoint default"  # the settings in the file's metadata, as in PixelDiT Sampler


def add_size(group: Any) -> None:
    """The size of images."""
    group.add_argument(
        "--size",
        type=parse_size,
        metavar="WIDTHxHEIGHT",
        help="pixels, or one number for a square (default: the trained size)",
    )


def add_settings(parser: argparse.ArgumentParser, published: tuple[str, ...]) -> None:
    """Settings by name, and each of them."""
    group = parser.add_argument_group("sampling (default: the checkpoint's settings, else the published ones)")
    group.add_argument(
        "--settings",
        choices=[CHECKPOINT_DEFAULT, *published],
        metavar="NAME",
        help=f'settings by name: {", ".join(published)}, or "{CHECKPOINT_DEFAULT}" for those in the file; the options '
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


def add_computation(parser: argparse.ArgumentParser) -> None:
    """Device, precision, weights and batch size."""
    group = parser.add_argument_group("computation")
    group.add_argument("--device", default="auto", help='"cpu", "cuda", "mps" ... (default: an accelerator if any)')
    group.add_argument(
        "--dtype",
        type=dtype_option("fp32", "bf16", "fp16"),
        default=torch.float32,
        metavar="fp32|bf16|fp16",
        help="of the weights and the network; bf16 halves the memory and changes images slightly (default: fp32)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="through torch.compile, on CUDA as CUDA graphs, too: faster, after first steps that take minutes with a "
        "large network; images change by rounding. Needs a C++ compiler on a CPU, Triton on a GPU",
    )
    add_weights_option(group)
    add_encoder_option(group)
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="images at a time; fewer need less memory (default: by size)"
    )


def choose_settings(model: Model, options: argparse.Namespace) -> tuple[SamplingSettings, Size]:
    """The settings by name or of the checkpoint with the given values, and their size (height, width).

    Raises:
        ValueError: no settings in the checkpoint; a value out of range; a size that the model cannot generate.
    """
    if options.settings == CHECKPOINT_DEFAULT and not model.settings:
        raise ValueError(
            f"{model.spec.source} has no settings in its metadata. Choose one of {', '.join(model.family.settings)}."
        )
    settings = SETTINGS.get(options.settings) or model.spec.settings_for(options.size)
    size = options.size or settings.size or model.spec.default_size
    names = ("steps", "solver", "cfg", "timeshift", "cfg_interval")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if "cfg_interval" in given:
        given["cfg_interval"] = check_interval(given["cfg_interval"])
    steps, timeshift = (given.get(name, getattr(settings, name)) for name in ("steps", "timeshift"))
    time_grid(model, steps, timeshift, convention=options.convention)  # checks both
    check_size(model.spec, *size)
    return dataclasses.replace(settings, size=size, **given), size
