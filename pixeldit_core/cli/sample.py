"""`sample`: pictures of classes, and a contact sheet of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..atomic import atomic_path
from ..checkpoints.inspect import inspect_checkpoint
from ..checkpoints.load import load_checkpoint
from ..conditions import class_condition
from ..families import CONVENTIONS, FAMILIES
from ..flow.guidance import check_interval
from ..flow.solvers import SOLVERS
from ..images import contact_sheet, to_pil, to_uint8
from ..labels import parse_classes
from ..model import Model
from ..sampling import check_size, sample, time_grid, unit_noise
from ..settings import SETTINGS, SamplingSettings
from ..sizes import advise
from ..text import shorten_list
from .options import (
    choose_device,
    class_name,
    describe_settings,
    dtype_option,
    parse_seeds,
    parse_size,
    positive,
    table,
)
from .progress import Progress

BOX = Path(__file__).parents[2] / "models" / "pixeldit-drawings-64.safetensors"  # the model in the box
SHEET = "contact-sheet.png"
OWN = "checkpoint"  # the settings that the file itself brings along

NAMED = {
    name: settings
    for family in FAMILIES.values()
    if family.condition == "class"
    for name, settings in family.settings.items()
}
_EVERY_CLASS_UP_TO = 20
_HANDFUL = [1, 88, 207, 279, 387, 417, 933, 974]  # of ImageNet: fish, birds, dogs, foxes, pandas, things, food, places
_BATCH_PIXELS = 2**19  #  what one batch has by default, all its pictures together
_LARGEST_BATCH = 32
_ON_SHEET = 400  #        pictures
_SEEDS_IN_A_ROW = 16

_EXAMPLES = """\
examples:
  python -m pixeldit_core sample
      one picture of every class of the small model that comes along
  python -m pixeldit_core sample imagenet256_pixeldit_xl_epoch320.ckpt --classes "1, 207, 250-253, tabby cat"
      the checkpoint's published settings, one picture of each class
  python -m pixeldit_core sample model.ckpt --classes 207 --seeds 0-15 --steps 50 --cfg 4 --out dogs
      sixteen different pictures of one class, faster and with more guidance
  python -m pixeldit_core sample imagenet512_pixeldit_xl.ckpt --size 640x512 --dtype bf16 --device cuda

A picture is decided by class, seed and settings: it is the same alone or among others. Files of the same name are
replaced.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `sample` to the command line."""
    parser = commands.add_parser(
        "sample",
        help="make pictures with a checkpoint",
        description="Makes a picture for every class and seed, <class>_<seed>.png, and a contact sheet of all.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="a .safetensors, .ckpt or .pth file; without it, the small model that comes along",
    )
    what = parser.add_argument_group("what to make")
    what.add_argument(
        "--classes",
        metavar="LIST",
        help='numbers, ranges and names, such as "1, 207, 250-253, tabby cat" (default: all if there are at most '
        f"{_EVERY_CLASS_UP_TO}, else a handful)",
    )
    what.add_argument(
        "--seeds",
        type=parse_seeds,
        default=[0],
        metavar="LIST",
        help="numbers and ranges, such as 0-7,42; one picture of each class for each (default: 0)",
    )
    what.add_argument(
        "--size",
        type=parse_size,
        metavar="WIDTHxHEIGHT",
        help="pixels, or one number for a square (default: what the model was trained on)",
    )
    what.add_argument("--out", type=Path, default=Path("output"), metavar="FOLDER", help="where to (default: output)")
    how = parser.add_argument_group("how to make it (default: the checkpoint's own settings, else the published one)")
    how.add_argument(
        "--settings",
        choices=[OWN, *NAMED],
        metavar="NAME",
        help=f"settings by name: {', '.join(NAMED)}, or {OWN} for those in the file; options below change "
        "single values of it",
    )
    how.add_argument("--steps", type=int, metavar="N", help="more is finer and slower; 20 to 100 are usual")
    how.add_argument("--solver", choices=list(SOLVERS), help="ab2 is the published one; heun_exact costs twice as much")
    how.add_argument(
        "--cfg", type=float, metavar="SCALE", help="guidance: 1 is none, 2 to 4 usual, more is stronger and less varied"
    )
    how.add_argument(
        "--cfg-interval",
        type=float,
        nargs=2,
        metavar=("START", "END"),
        help="guide only between these times (0 = noise, 1 = image); outside, a step costs half",
    )
    how.add_argument(
        "--timeshift", type=float, metavar="SHIFT", help="above 1: more of the steps near the noise; 1 is even"
    )
    how.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="house is the correct mathematics; published walks exactly as the authors' program, mistakes included "
        "(the same for the official models; default: house)",
    )
    where = parser.add_argument_group("where to compute")
    where.add_argument("--device", default="auto", help='"cpu", "cuda", "mps" ... (default: the fastest there is)')
    where.add_argument(
        "--dtype",
        type=dtype_option("fp32", "bf16", "fp16"),
        default=torch.float32,
        metavar="fp32|bf16|fp16",
        help="of weights and network: bf16 needs half the memory, with slightly different pictures (default: fp32)",
    )
    where.add_argument(
        "--weights",
        choices=["auto", "ema", "raw"],
        default="auto",
        help="averaged (ema) or raw ones, where a file has both (default: what the authors used)",
    )
    where.add_argument(
        "--batch-size", type=positive, metavar="N", help="pictures at a time; less needs less memory (default: by size)"
    )


def run(options: argparse.Namespace) -> int:
    """Make the pictures; gives the exit status."""
    path = _checkpoint(options.checkpoint)
    _require_classes(path)
    model = load_checkpoint(path, choose_device(options.device), options.dtype, options.weights)
    settings = _settings(model, options)
    check_size(model.spec, *settings.size)
    classes = _classes(model, options.classes)
    options.out.mkdir(parents=True, exist_ok=True)  # now, not after minutes, if it cannot be
    pairs = [(index, seed) for index in classes for seed in options.seeds]
    height, width = settings.size
    batch_size = options.batch_size or min(_LARGEST_BATCH, max(1, _BATCH_PIXELS // (height * width)))

    started = time.monotonic()
    sheet = _make(model, settings, options.convention, pairs, batch_size, options.out)
    seconds = time.monotonic() - started

    small = max(1, 128 // width)
    columns = len(options.seeds) if 1 < len(options.seeds) <= _SEEDS_IN_A_ROW else None
    _write_picture(contact_sheet(sheet, columns, scale=small), options.out / SHEET)
    averaged = ", averaged weights" if model.spec.weights == "ema" else ""
    shown = "" if len(sheet) == len(pairs) else f" (the first {len(sheet)})"
    sys.stdout.write(
        f"{len(pairs)} picture{'s' if len(pairs) > 1 else ''} in {seconds:.1f} s\n"
        + table(
            {
                "model": f"{model.spec.source} ({model.family.title}{averaged})",
                "classes": shorten_list([class_name(model, index) for index in classes], 8),
                "seeds": shorten_list([str(seed) for seed in options.seeds], 16),
                "settings": describe_settings(settings) + _advice(model, settings),
                "computed": f"on {model.device} in {str(model.dtype)[6:]}, {min(batch_size, len(pairs))} at a time",
                "pictures": options.out / "<class>_<seed>.png",
                "contact sheet": f"{options.out / SHEET}{shown}",
            }
        )
    )
    return 0


def _checkpoint(given: Path | None) -> Path:
    if given is None and not BOX.exists():
        raise ValueError(f"the small model that should come along is not there ({BOX}). Name a checkpoint file.")
    return given or BOX


def _require_classes(path: Path) -> None:
    """Raises ValueError for a model that paints from text, before gigabytes of it are read."""
    family = FAMILIES.get(inspect_checkpoint(path).family)
    if family and family.condition != "class":
        raise ValueError(
            f"{path.name} is {family.title}, and the command line has no text encoder. Use it in ComfyUI, or as a "
            "library with pixeldit_core.text_condition and states that you have encoded."
        )


def _settings(model: Model, options: argparse.Namespace) -> SamplingSettings:
    """The settings of a settings, with single values and the size in place of its own.

    Raises:
        ValueError: a value that no sampling can have.
    """
    if options.settings == OWN and not model.settings:
        raise ValueError(f"{model.spec.source} has no settings of its own. Take one of {', '.join(NAMED)}.")
    named = SETTINGS.get(options.settings)
    settings = named or model.spec.settings_for(options.size)
    size = options.size or settings.size or model.spec.default_size
    given = {name: getattr(options, name) for name in ("steps", "solver", "cfg", "timeshift", "cfg_interval")}
    given = {name: value for name, value in given.items() if value is not None}
    if "cfg_interval" in given:
        given["cfg_interval"] = check_interval(given["cfg_interval"])
    time_grid(
        model,
        given.get("steps", settings.steps),
        given.get("timeshift", settings.timeshift),
        convention=options.convention,
    )
    return dataclasses.replace(settings, size=size, **given)


def _advice(model: Model, settings: SamplingSettings) -> str:
    found = advise(settings.size, model.spec.trained_sizes)
    return f" ({found})" if found else ""


def _classes(model: Model, text: str | None) -> list[int]:
    count = model.params.num_classes
    if text is not None:
        return list(dict.fromkeys(parse_classes(text, count, model.class_names)))
    if count <= _EVERY_CLASS_UP_TO:
        return list(range(count))
    if count > _HANDFUL[-1]:
        return _HANDFUL
    return [count * part // 8 for part in range(8)]


def _make(
    model: Model,
    settings: SamplingSettings,
    convention: str,
    pairs: list[tuple[int, int]],
    batch_size: int,
    folder: Path,
) -> torch.Tensor:
    """Sample and write all pictures; gives those for the contact sheet."""
    made: list[torch.Tensor] = []
    with Progress(len(pairs), settings.steps) as progress:
        for first in range(0, len(pairs), batch_size):
            batch = pairs[first : first + batch_size]
            try:
                pixels = _sample(model, settings, convention, batch, progress)
                for (index, seed), picture in zip(batch, to_pil(pixels), strict=True):
                    about = {
                        "model": model.spec.source,
                        "class": class_name(model, index),
                        "seed": seed,
                        "convention": convention,
                    }
                    _write_picture(picture, folder / f"{index}_{seed}.png", about | settings.to_dict())
                    progress.finish(1)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped: {progress.finished} of {len(pairs)} pictures are finished, in {folder}."
                ) from None
            made.extend(pixels[: _ON_SHEET - len(made)])
    return torch.stack(made)


def _sample(
    model: Model, settings: SamplingSettings, convention: str, batch: list[tuple[int, int]], progress: Progress
) -> torch.Tensor:
    x = sample(
        model,
        class_condition(model, [index for index, _ in batch]),
        noise=unit_noise(model, [seed for _, seed in batch], *settings.size),
        steps=settings.steps,
        solver=settings.solver,
        cfg=settings.cfg,
        timeshift=settings.timeshift,
        cfg_interval=settings.cfg_interval,
        convention=convention,
        on_step=lambda i, t, x, v: progress.step(i + 1, len(batch)),
    )
    return to_uint8(model, x, convention)


def _write_picture(picture: Image.Image, path: Path, about: dict[str, Any] | None = None) -> None:
    text = PngInfo()
    if about:
        text.add_text("pixeldit", json.dumps(about))
    with atomic_path(path) as part:
        picture.save(part, format="PNG", pnginfo=text)
