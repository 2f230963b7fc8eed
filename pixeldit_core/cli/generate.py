"""The loop of `sample`: batches, progress, and each image as a PNG file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..conditions import class_condition
from ..images import to_pil, to_uint8, write_png
from ..model import Model
from ..sampling import sample
from ..settings import SamplingSettings

_SHEET_IMAGES = 400
_BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} images [{elapsed}<{remaining}]"


def generate(
    model: Model,
    settings: SamplingSettings,
    convention: str,
    pairs: list[tuple[int, int]],
    batch_size: int,
    folder: Path,
    compile: bool = False,
) -> Tensor:
    """Sample and write an image for each (class, seed); returns those for the contact sheet, uint8 [B, H, W, C].

    Raises:
        KeyboardInterrupt: stopped; says how many images are finished.
    """
    kept: list[Tensor] = []
    finished = 0
    with tqdm(total=len(pairs), bar_format=_BAR, leave=False, disable=None) as bar:
        try:
            for first in range(0, len(pairs), batch_size):
                batch = pairs[first : first + batch_size]
                pixels = _sample(model, settings, convention, batch, bar, compile)
                for (index, seed), image in zip(batch, to_pil(pixels), strict=True):
                    values = {"model": model.spec.source, "class": class_name(model, index), "seed": seed}
                    values |= {"convention": convention, **settings.to_dict()}
                    write_png(image, folder / f"{index}_{seed}.png", values)
                    finished += 1
                kept.extend(pixels[: _SHEET_IMAGES - len(kept)])
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped: {finished} of {len(pairs)} images are finished, in {folder}.") from None
    return torch.stack(kept)


def _sample(
    model: Model,
    settings: SamplingSettings,
    convention: str,
    batch: list[tuple[int, int]],
    bar: tqdm,
    compile: bool,
) -> Tensor:
    indices, seeds = zip(*batch, strict=True)

    def on_step(i: int, t: float, x: Tensor, v: Tensor) -> None:
        bar.update(len(batch) / settings.steps)

    x = sample(
        model,
        class_condition(model, list(indices)),
        seeds=seeds,
        convention=convention,
        compile=compile,
        on_step=on_step,
        **settings.to_dict(),
    )
    return to_uint8(model, x, convention)


def class_name(model: Model, index: int) -> str:
    """ "207: golden retriever", or the number alone."""
    if index == model.params.num_classes:
        return f"{index}: null class"
    return f"{index}: {model.class_names[index][0]}" if model.class_names else str(index)
