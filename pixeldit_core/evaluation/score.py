"""Scores of a folder of images, with everything that a reader must know to compare them: score.json."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from ..atomic import atomic_path, explain_write_error
from ..extras import require
from .archive import NAME as ARCHIVE
from .class_accuracy import accuracy, match_labels
from .deviations import find_deviations
from .extractor import Extractor
from .image_folder import ImageFolder
from .image_source import FolderSource, ImageSource, open_images
from .measure import Measured, measure_images
from .metrics import compute_scores
from .reference import Reference
from .run_record import read_run

NAME = "score.json"


def open_samples(path: Path) -> tuple[ImageSource, dict[str, Any] | None]:
    """The images to score, and the record of the run that made them; None = they were made elsewhere.

    Raises:
        ValueError: no images, or an incomplete run.
    """
    if not path.exists():
        raise ValueError(f"{path} is not there. Name a folder of images, or an .npz file, to score.")
    run = read_run(path) if path.is_dir() else None
    if run is None:
        return open_images(path), None
    count, shape = run["count"], tuple(run["shape"])
    folder = ImageFolder(path, shape)
    there = folder.count(count)
    if there == count:
        source: ImageSource = FolderSource(path, [folder.file(index) for index in range(count)], kind="run")
    elif not there and (path / ARCHIVE).is_file():
        source = open_images(path / ARCHIVE)
        there = source.count
    if there != count:
        raise ValueError(
            f"{path} lacks {abs(count - there)} of its {count} images: its run is not complete. Run the command that "
            "started it again; it makes what is missing."
        )
    if source.size != shape[:2]:
        raise ValueError(
            f"{path} has images of {source.size[1]} x {source.size[0]} pixels, and run.json says {shape[1]} x "
            f"{shape[0]}. Run the command that started it again; it replaces what does not fit."
        )
    return source, run


def score_samples(
    path: Path, reference: Reference, extractor: Extractor, device: torch.device, batch_size: int = 64
) -> dict[str, Any]:
    """Score images; the content of score.json.

    Raises:
        ValueError: images that cannot be read, or do not fit the reference.
    """
    source, run = open_samples(path)
    samples = measure_images(source, extractor, device, batch_size=batch_size)
    scores = compute_scores(samples, reference, _accuracy(samples, extractor, run))
    return {
        **dataclasses.asdict(scores),
        "count": samples.count,
        "deviations": find_deviations(source, samples, reference, extractor, run),
        "samples": str(path),
        "reference": reference.about,
        "extractor": {"name": extractor.name, "weights": extractor.weights, "features": len(samples.fid.mu)},
        "run": run,
        "versions": _versions(),
    }


def write_score(values: dict[str, Any], path: Path) -> None:
    """Write score.json.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        with atomic_path(path) as part:
            part.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    except OSError as error:
        reason, way_out = explain_write_error(error, path)
        raise ValueError(
            f"{path} could not be written: {reason}. {way_out} A copy of the images can be scored as well."
        ) from error


def score_path(samples: Path) -> Path:
    """Where the score of a folder, or of an .npz file, is written."""
    return samples / NAME if samples.is_dir() else samples.with_suffix(f".{NAME}")


def _accuracy(samples: Measured, extractor: Extractor, run: dict[str, Any] | None) -> float | None:
    """Of samples whose classes are those of a classifier; None for prompts, and for images of no class."""
    names = extractor.class_names
    if names is None or run is None or run["classes"] is None or samples.labels is None or samples.logits is None:
        return None
    own = [(name,) for name in run["class_names"]] if run["class_names"] else None
    if own is not None and samples.labels.max() >= len(own):
        return None
    return accuracy(samples.logits, match_labels(samples.labels, own, names))


def _versions() -> dict[str, str]:
    from .. import __version__

    return {
        "pixeldit": __version__,
        "torch": str(torch.__version__),
        "torch-fidelity": require("torch_fidelity").__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }
