"""`sample`: images of classes, and a contact sheet of them."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ..checkpoints.inspect import inspect_checkpoint
from ..checkpoints.load import load_checkpoint
from ..dtypes import dtype_name
from ..families import FAMILIES
from ..images import contact_sheet, write_png
from ..labels import find_class, parse_classes
from ..model import Model
from ..sizes import advise
from ..text import shorten_list
from .generate import class_name, generate
from .options import choose_device, say_emulated
from .sample_options import ALL_CLASSES_UP_TO, EXAMPLES, add_arguments
from .sampling_options import choose_settings
from .text import describe_compiled, describe_settings, table

BUNDLED_MODEL = Path(__file__).parents[2] / "models" / "pixeldit-emoji-96.safetensors"
SHEET = "contact-sheet.png"
SHOWCASE = (  # of the bundled model's classes
    "fox",
    "raccoon",
    "panda",
    "penguin",
    "frog",
    "snail",
    "strawberry",
    "doughnut",
    "cupcake",
    "castle",
    "robot",
    "rocket",
)

_IMAGENET_CLASSES = [1, 88, 207, 279, 387, 417, 933, 974]  # fish, bird, dog, fox, panda, balloon, food, place
_BATCH_PIXELS = 2**19  #  in one batch, by default
_LARGEST_BATCH = 32
_SEEDS_IN_A_ROW = 16
_SHOWCASE_SEEDS = [0, 1]
_SHEET_WIDTH = 128  #     smaller images are enlarged by an integer, to at most this


def add_command(commands: Any, **options: Any) -> None:
    """Add `sample` to the command line."""
    parser = commands.add_parser(
        "sample",
        help="generate images with a checkpoint",
        description="Generates an image for every class and seed, <class>_<seed>.png, and a contact sheet of all.",
        epilog=EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Generate the images; returns the exit status."""
    path = _find_checkpoint(options.checkpoint)
    _require_classes(path)
    model = load_checkpoint(
        path, choose_device(options.device), options.dtype, options.weights, encoder=options.encoder
    )
    settings, size = choose_settings(model, options)
    classes, showcase = _choose_classes(model, options.classes)
    seeds = options.seeds or (_SHOWCASE_SEEDS if showcase else [0])
    options.out.mkdir(parents=True, exist_ok=True)  # fails now rather than after minutes
    pairs = [(index, seed) for index in classes for seed in seeds]
    columns = len(seeds) if 1 < len(seeds) <= _SEEDS_IN_A_ROW else None
    if showcase:  # one class per column
        pairs, columns = [(index, seed) for seed in seeds for index in classes], len(classes)
    batch_size = options.batch_size or min(_LARGEST_BATCH, max(1, _BATCH_PIXELS // (size[0] * size[1])))

    say_emulated(model.dtype, model.device)
    started = time.monotonic()
    images = generate(model, settings, options.convention, pairs, batch_size, options.out, options.compile)
    seconds = time.monotonic() - started

    sheet = contact_sheet(images, columns, scale=max(1, _SHEET_WIDTH // size[1]))
    write_png(sheet, options.out / SHEET)
    averaged = ", averaged weights" if model.spec.weights == "ema" else ""
    advice = advise(size, model.spec.trained_sizes)
    rows = {
        "model": f"{model.spec.source} ({model.family.title}{averaged})",
        "classes": shorten_list([class_name(model, index) for index in classes], 12 if showcase else 8),
        "seeds": shorten_list([str(seed) for seed in seeds], 16),
        "settings": describe_settings(settings) + (f" ({advice})" if advice else ""),
        "computed": f"on {model.device} in {dtype_name(model.dtype)}, {min(batch_size, len(pairs))} at a time",
        **describe_compiled(model),
        "images": options.out / "<class>_<seed>.png",
        "contact sheet": f"{options.out / SHEET}" + (f" (the first {len(images)})" if len(images) < len(pairs) else ""),
    }
    sys.stdout.write(f"{len(pairs)} image{'s' if len(pairs) > 1 else ''} in {seconds:.1f} s\n{table(rows)}")
    return 0


def _find_checkpoint(path: Path | None) -> Path:
    if path is None and not BUNDLED_MODEL.exists():
        raise ValueError(f"bundled model not found at {BUNDLED_MODEL}; pass a checkpoint.")
    return path or BUNDLED_MODEL


def _require_classes(path: Path) -> None:
    """Raises ValueError for a text-conditional model, before gigabytes of it are read."""
    family = FAMILIES.get(inspect_checkpoint(path).family or "")
    if family and family.condition != "class":
        raise ValueError(
            f"{path.name} is {family.title}, and the command line has no text encoder. Use it in ComfyUI, or as a "
            "library: encode the prompt yourself and pass it to pixeldit_core.text_condition."
        )


def _choose_classes(model: Model, text: str | None) -> tuple[list[int], bool]:
    """The classes, and whether they are those of the showcase."""
    count, names = model.params.num_classes, model.class_names or ()
    if text is not None:
        return list(dict.fromkeys(parse_classes(text, count, model.class_names))), False
    if set(SHOWCASE) <= {entry[0] for entry in names}:
        return [find_class(name, count, names) for name in SHOWCASE], True
    if count <= ALL_CLASSES_UP_TO:
        return list(range(count)), False
    if count > _IMAGENET_CLASSES[-1]:
        return _IMAGENET_CLASSES, False
    return [count * part // 8 for part in range(8)], False
