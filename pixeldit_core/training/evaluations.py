"""Scores of a run while it trains: the command `evaluate`, in a process of its own beside the training."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from .config import EvaluateConfig
from .evaluate_command import command_words, environment
from .run_folder import RunFolder
from .run_log import read_rows, write_rows

log = logging.getLogger(__name__)

COLUMNS = ("step", "fid", "inception_score", "precision", "recall", "count")  # of scores.csv
_MODEL, _LOG, _SCORE, _IMAGES = "model.safetensors", "evaluate.log", "score.json", "images"
_PATIENCE = 10.0  # seconds that a process has to end before it is killed
_POLL = 0.1  # seconds


def unscored_steps(run: RunFolder) -> list[int]:
    """Steps whose evaluation was stopped, has failed or was never started: they still have their model."""
    return [step for step in run.evaluated_steps() if (run.evaluation(step) / _MODEL).is_file()]


class Evaluations:
    """The evaluations of a run, one at a time and in the order of their steps. Of the main process.

    Nothing that happens to one of them ends the training: a failure is a warning, and its files stay for `--resume`; of
    several failures only those of the last, for each has a whole model.

    Args:
        device: of the command, unless the recipe names another.
        start: the step that the run goes on from: what is of later steps, of a run that was killed after it had
            saved, is removed. Evaluations of earlier steps that have no score yet come first.
        report: called with each row of scores.csv.
    """

    command: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "pixeldit_core", "evaluate")

    def __init__(
        self,
        run: RunFolder,
        config: EvaluateConfig,
        device: str,
        start: int,
        report: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ) -> None:
        self.run, self.config, self.device, self.report = run, config, device, report
        self._process: subprocess.Popen[bytes] | None = None
        self._current = 0  # the step of the process
        self._failed: int | None = None  # the last step that did
        self._removal: threading.Thread | None = None
        self._drop_after(start)
        self._queue = deque(unscored_steps(run))

    @property
    def waiting(self) -> list[int]:
        """Steps without a score yet: that of the evaluation that runs, and those that come after it."""
        return [*([] if self._process is None else [self._current]), *self._queue]

    def add(self, step: int, write: Callable[[Path], None]) -> None:
        """Queue a step; `write` writes its model."""
        try:
            write(self.run.evaluation(step) / _MODEL)
        except (OSError, ValueError) as error:
            _say(logging.WARNING, "step %d is not evaluated: %s", step, error)
            return
        self._queue.append(step)
        self.poll()
        if len(self._queue) > 1:
            _say(
                logging.WARNING,
                "%d evaluations wait for that of step %d, each with a model on the disk: raise engine.evaluate_every, "
                "lower evaluate.count, or name a faster evaluate.device.",
                len(self._queue), self._current,
            )  # fmt: skip

    def poll(self) -> None:
        """Take the result of a process that has ended, and start the next one. Cheap."""
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            self._collect(self._current, status)
        while self._process is None and self._queue:
            self._start(self._queue.popleft())

    def finish(self, is_asked: Callable[[], bool] = lambda: False) -> bool:
        """Wait until there is nothing left, or until asked to stop; whether there is nothing left."""
        self.poll()
        if self.waiting:
            steps = ", ".join(map(str, self.waiting))
            _say(logging.INFO, "waiting for the evaluation of step %s; Ctrl-C leaves it to --resume.", steps)
        while self.waiting and not is_asked():
            time.sleep(_POLL)
            self.poll()
        return not self.waiting

    def close(self) -> None:
        """End what runs; its folder stays, and a resumed run goes on with it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._removal is not None:
            self._removal.join()

    def _start(self, step: int) -> None:
        """Start the process of a step, or take the result that an earlier one has left."""
        self._current, folder = step, self.run.evaluation(step)
        if (folder / _SCORE).is_file():
            self._collect(step, 0)
            return
        words = [*self.command, *command_words(self.config, folder / _MODEL, folder, self.device)]
        try:
            with (folder / _LOG).open("ab") as output:
                self._process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment(),
                    # Ctrl-C in a terminal is for the run, which ends the command itself
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
        except OSError as error:
            self._fail(step, f"it could not be started: {error}")

    def _collect(self, step: int, status: int) -> None:
        """The result of a process that has ended."""
        folder = self.run.evaluation(step)
        if status:
            self._fail(step, f"exit status {status}: {_last_line(folder / _LOG)}")
            return
        try:
            row = {"step": step, **_read_score(folder / _SCORE)}
            others = [other for other in read_rows(self.run.scores) if _step_of(other) != step]
            write_rows(self.run.scores, COLUMNS, sorted([*others, row], key=_step_of))
            (folder / _MODEL).unlink()  # from here on the step has its score
        except (OSError, ValueError) as error:
            self._fail(step, str(error))
            return
        self._remove(folder / _IMAGES)
        self.report(row)
        _say(logging.INFO, "step %d: FID %.4g (%s images)", step, row["fid"], f"{row['count']:,}")

    def _fail(self, step: int, reason: str) -> None:
        path = self.run.evaluation(step) / _LOG
        _say(logging.WARNING, "the evaluation of step %d failed (%s). The run goes on; see %s.", step, reason, path)
        if self._failed is not None:
            older = self.run.evaluation(self._failed)
            with contextlib.suppress(OSError):
                (older / _MODEL).unlink()
            self._remove(older / _IMAGES)
        self._failed = step

    def _remove(self, images: Path) -> None:
        """Remove a folder in a thread: thousands of files on a slow disk would hold up the other processes."""
        if self._removal is not None:
            self._removal.join()
        self._removal = threading.Thread(target=shutil.rmtree, args=(images, True))
        self._removal.start()

    def _drop_after(self, start: int) -> None:
        """Remove what is of steps after `start`, and what a killed run was writing or removing."""
        for step in self.run.evaluated_steps():
            folder = self.run.evaluation(step)
            if step > start:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for part in folder.glob(".*.part"):
                part.unlink()
            if not (folder / _MODEL).exists():
                shutil.rmtree(folder / _IMAGES, ignore_errors=True)
        if self.run.scores.exists():
            kept = [row for row in read_rows(self.run.scores) if _step_of(row) <= start]
            write_rows(self.run.scores, COLUMNS, kept)


def _read_score(path: Path) -> dict[str, Any]:
    """The columns of scores.csv, but for the step.

    Raises:
        ValueError: there is no such file, or no FID in it.
    """
    try:
        score = json.loads(path.read_text("utf-8"))
        found = {name: score.get(name) for name in COLUMNS[1:]}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found["fid"], int | float) or not isinstance(found["count"], int):
        raise ValueError(f"{path.name} has no fid or no count")
    return found


def _step_of(row: Mapping[str, Any]) -> float:
    return float(row["step"])


def _last_line(path: Path) -> str:
    """Of a log; a progress bar that goes back to the start of its line begins a new one here."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        return f"its log cannot be read: {error}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "its log is empty"


def _say(level: int, message: str, *values: Any) -> None:
    """Log a line above the progress bar."""
    with tqdm.external_write_mode(file=sys.stderr):
        log.log(level, message, *values)
