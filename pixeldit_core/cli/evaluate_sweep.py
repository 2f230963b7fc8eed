"""The part of `evaluate` that scores a grid of settings."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..evaluation.generate import Job
from ..evaluation.image_folder import ImageFolder
from ..evaluation.plot import plot_sweep
from ..evaluation.processes import Processes
from ..evaluation.run_record import differences
from ..evaluation.score import NAME as SCORE
from ..evaluation.sweep import EMA, Point, image_key, markdown, parse_axes, point_name, points, settings_at
from .evaluate_run import build_job, checkpoint_hashes, identify, open_model, run_job
from .evaluate_score import Judge, write_scores

log = logging.getLogger(__name__)

_SCORES = ("fid", "sfid", "inception_score", "precision", "recall", "accuracy")


class Sweep:
    """A grid of settings below --out: a folder for each point, sweep.csv, sweep.md and sweep.png."""

    def __init__(self, options: argparse.Namespace, processes: Processes) -> None:
        self.options, self.processes, self.out = options, processes, options.out
        self.axes = parse_axes(options.sweep)
        self.run = options.checkpoint
        if EMA in self.axes and not self.run.is_dir():
            raise ValueError(
                f"{self.run} is no folder; to sweep ema, name the folder of a training run whose recipe has "
                "average.power, for its averages are made from the run's snapshots."
            )
        self.judge = Judge(options, processes.device)
        if processes.is_main:
            self.judge.check()
        self.rows: list[dict[str, Any]] = []
        self._seen: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __call__(self) -> str:
        """Every point that is not scored yet; the table.

        Raises:
            ValueError: settings that a point cannot have, before the first image.
        """
        lengths = self.axes.get(EMA, (None,))
        grid = points(self.axes)
        for length in lengths:
            jobs = self._open(length, [point for point in grid if point.get(EMA) == length])
            for point, job, identity in jobs:
                self._add(point, job, identity)
        if not self.processes.is_main:
            return ""
        return f"{self.out / 'sweep.png'}\n\n{(self.out / 'sweep.md').read_text('utf-8')}"

    def _open(self, length: Any, grid: list[dict[str, Any]]) -> list[tuple[Point, Job, dict[str, Any]]]:
        """The jobs of one set of weights: every setting is checked before the first image."""
        if length is not None:
            self.options.checkpoint = self._average(length)
        base = build_job(open_model(self.options, self.processes), self.options)
        jobs = [(point, dataclasses.replace(base, settings=settings_at(base.settings, point))) for point in grid]
        for _, job in jobs:
            image_key(job.model, job.settings, job.convention)  # checks steps and timeshift
        files = self.processes.share(checkpoint_hashes(self.options, self.processes))
        return [(point, job, identify(job, self.options, files)) for point, job in jobs]

    def _average(self, length: float) -> Path:
        """The file of an average of a run, made if it is not there."""
        from ..training.run_folder import RunFolder
        from ..training.snapshots import reconstruct

        path = self.run / f"model-ema-{length:.3f}.safetensors"
        if self.processes.is_main and not path.exists():
            log.info("making the average of length %g: %s", length, path)
            run = RunFolder(self.run)
            reconstruct(run.snapshots, length, path, encoder=self.options.encoder or run.encoder)
        self.processes.wait()
        return path

    def _add(self, point: Point, job: Job, identity: dict[str, Any]) -> None:
        """Score a point, or take the score of one that has the same images."""
        key = (point.get(EMA), *image_key(job.model, job.settings, job.convention))
        if key in self._seen:
            self._finish(point, self._seen[key], same_as=self._seen[key]["point"])
            return
        folder = self.out / point_name(point)
        scores = self.processes.share(self._stored(folder, job, identity) if self.processes.is_main else None)
        if scores is None:
            run_job(job, self.options, self.processes, folder, identity)
            if self.processes.is_main:
                scores = write_scores(self.judge, folder)
                if not self.options.keep_images:
                    ImageFolder(folder, job.shape).remove(job.plan.count)
            self.processes.wait()
        self._seen[key] = {**{name: (scores or {}).get(name) for name in _SCORES}, "point": point_name(point)}
        self._finish(point, self._seen[key])

    def _stored(self, folder: Path, job: Job, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The score of an earlier command, if it is of the same images, extractor and reference."""
        try:
            scores = json.loads((folder / SCORE).read_text("utf-8"))
            run, extractor = dict(scores["run"]), scores["extractor"]
            same = run.pop("count") == job.plan.count and self._is_extractor(extractor)
            same = same and scores["reference"] == self.judge.reference(job.shape[:2]).about
        except (OSError, ValueError, KeyError, TypeError):
            return None
        for name in ("balanced", "version"):
            run.pop(name, None)
        return scores if same and not list(differences(run, json.loads(json.dumps(identity)))) else None

    def _is_extractor(self, stored: dict[str, Any]) -> bool:
        """Whether a score is of this extractor, whatever its file is called."""
        own = self.judge.extractor
        return stored["name"] == own.name and sorted(stored["weights"].values()) == sorted(own.weights.values())

    def _finish(self, point: Point, scores: dict[str, Any], same_as: str = "") -> None:
        """Add a row, and write table and plot so far."""
        if not self.processes.is_main:
            return
        self.rows.append({**point, **{name: scores[name] for name in _SCORES}, "same_as": same_as})
        log.info("%s: FID %.4f%s", point_name(point), scores["fid"], f" (as {same_as})" if same_as else "")
        with atomic_path(self.out / "sweep.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_path(self.out / "sweep.md") as part:
            part.write_text(markdown(self.rows, list(self.axes)), "utf-8")
        title = f"{self.run.name}, {self.options.count:,} images, {self.options.extractor}"
        plot_sweep(self.rows, self.axes, self.out / "sweep.png", title)


def sweep(options: argparse.Namespace, processes: Processes) -> str:
    """Score every point; what to print."""
    if options.shard != (0, 1) or options.npz_only:
        raise ValueError("--sweep makes all images of a point before it scores them: leave --shard and --npz-only out.")
    return Sweep(options, processes)()
