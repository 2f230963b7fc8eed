"""The part of `evaluate` that scores."""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..evaluation.extractor import Extractor, load_extractor
from ..evaluation.reference import Reference, check_statistics_name, open_reference, save_reference
from ..evaluation.score import open_samples, score_path, score_samples, write_score
from ..resize import Size
from .text import table

_TITLES = {
    "fid": ("FID", "{:.4f}"), "sfid": ("sFID", "{:.4f}"), "inception_score": ("Inception Score", "{:.3f}"),
    "precision": ("precision", "{:.4f}"), "recall": ("recall", "{:.4f}"), "accuracy": ("accuracy", "{:.2%}"),
}  # fmt: skip
_BATCH = 64


class Judge:
    """The extractor and the reference of a command, each loaded and measured once."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.options, self.device = options, device
        self._references: dict[Size | None, Reference] = {}

    @cached_property
    def extractor(self) -> Extractor:
        """The one that was asked for."""
        return load_extractor(self.options.extractor, self.options.extractor_weights, self.device)

    def check(self) -> None:
        """Raises what can be found out before hours of generating: an extractor or reference that is not there."""
        _ = self.extractor
        if not self.options.reference.exists():
            raise ValueError(
                f"the reference {self.options.reference} is not there. Name a folder of images, or an .npz file."
            )

    def reference(self, size: Size | None) -> Reference:
        """For samples of this size; None = whatever the reference has."""
        if size not in self._references:
            self._references[size] = open_reference(
                self.options.reference, self.extractor, self.device, size,
                crop=self.options.crop_reference, batch_size=_BATCH,
            )  # fmt: skip
        return self._references[size]

    def save(self, path: Path, samples: Path | None) -> None:
        """Write the statistics of the reference.

        Raises:
            ValueError: a name that does not end in .npz; as `open_reference`.
        """
        check_statistics_name(path)  # before the reference is measured
        size = self.options.size or (open_samples(samples)[0].size if samples else None)
        if self.options.crop_reference and size is None:
            raise ValueError("--crop-reference needs a size to crop to: give --size, or the samples with --score.")
        save_reference(self.reference(size), self.extractor, path)


def score_images(judge: Judge, path: Path) -> str:
    """Score a folder or an .npz file, write score.json, and say what came of it."""
    return describe(write_scores(judge, path), score_path(path))


def write_scores(judge: Judge, path: Path) -> dict[str, Any]:
    """Score and write score.json; its content."""
    reference = judge.reference(open_samples(path)[0].size)
    values = score_samples(path, reference, judge.extractor, judge.device, _BATCH)
    write_score(values, score_path(path))
    return values


def describe(values: dict[str, Any], path: Path) -> str:
    """Scores, and beside them in what they deviate from the protocol."""
    rows = {title: form.format(values[name]) for name, (title, form) in _TITLES.items() if values[name] is not None}
    if values["inception_score_std"]:
        rows["Inception Score"] += f" +- {values['inception_score_std']:.3f}"
    notes = "".join(f"  * {note}\n" for note in values["deviations"])
    head = f"deviations from the ADM protocol:\n{notes}" if notes else "as the ADM protocol has it.\n"
    return f"{path}\n{table(rows)}{head}"
