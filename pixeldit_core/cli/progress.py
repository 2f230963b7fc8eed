"""A progress bar."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 24
_PAUSE_ON_TERMINAL, _PAUSE_IN_FILE = 0.1, 10.0  # seconds between two updates


class Progress:
    """Pictures, steps and the time left, on stderr: one line that changes on a terminal, few lines in a file."""

    def __init__(self, pictures: int, steps: int, stream: TextIO | None = None) -> None:
        self.pictures = pictures
        self.steps = steps
        self.finished = 0
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.started = self.shown = time.monotonic()
        self.length = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.length:
            self.stream.write("\r" + " " * self.length + "\r")

    def step(self, step: int, batch: int) -> None:
        """`step` steps of the `batch` pictures at work are done."""
        now = time.monotonic()
        if now - self.shown < (_PAUSE_ON_TERMINAL if self.terminal else _PAUSE_IN_FILE):
            return
        self.shown = now
        share = (self.finished + batch * step / self.steps) / self.pictures
        left = _minutes((now - self.started) * (1 - share) / share)
        text = f"{self.finished}/{self.pictures} pictures, step {step}/{self.steps}, {left} left"
        if not self.terminal:
            self.stream.write(text + "\n")
        else:
            done = round(share * _WIDTH)
            line = f"[{'#' * done}{'.' * (_WIDTH - done)}] {text}"
            self.stream.write("\r" + line.ljust(self.length))
            self.length = len(line)
        self.stream.flush()

    def finish(self, batch: int) -> None:
        """These pictures are written."""
        self.finished += batch


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
