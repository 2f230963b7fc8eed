"""A progress bar over all processes and machines: it counts the files in their common folder."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from tqdm import tqdm

from .image_folder import PER_FOLDER, ImageFolder

_BAR = "{percentage:3.0f}%|{bar}| {n:.0f}/{total} images [{elapsed}<{remaining}, {rate_fmt}]"
_EVERY, _LOG_EVERY = 2.0, 60.0  # seconds

log = logging.getLogger(__name__)


class Progress:
    """Shows how many of `count` images are there, and when all will be; refreshed by a thread of its own.

    Without a terminal it logs a line now and then. Folders of which every image is there are not listed again.

    Args:
        every, log_every: seconds between looks into the folder, and between lines.
    """

    def __init__(
        self,
        folder: ImageFolder,
        count: int,
        *,
        shown: bool = True,
        every: float = _EVERY,
        log_every: float = _LOG_EVERY,
    ) -> None:
        self.folder, self.total, self.every, self.log_every = folder, count, every, log_every
        self._there: dict[int, int] = {}  # images of each folder
        self._stop = threading.Event()
        self.shown, self._first, self._started = shown, self.count(), time.monotonic()
        hidden = None if shown else True  # None: where there is no terminal
        self.bar = tqdm(total=count, initial=self._first, bar_format=_BAR, unit=" images", leave=False, disable=hidden)
        self._fraction, self._thread = 0.0, threading.Thread(target=self._refresh, daemon=True)

    def count(self) -> int:
        """Images that are there."""
        for first in range(0, self.total, PER_FOLDER):
            last = min(first + PER_FOLDER, self.total)
            if self._there.get(first, 0) < last - first:
                self._there[first] = len(self.folder.between(first, last))
        return sum(self._there.values())

    def computing(self, images: float) -> None:
        """Images that are not there yet, and whose network calls are done, in this process."""
        self._fraction = images

    def __enter__(self) -> Progress:
        if self.shown:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.bar.close()

    def _refresh(self) -> None:
        logged = self._started
        while not self._stop.wait(self.every):
            there = min(float(self.total), self.count() + self._fraction)
            if not self.bar.disable:
                self.bar.n = there
                self.bar.refresh()
            elif time.monotonic() - logged >= self.log_every:
                logged = time.monotonic()
                log.info("%s of %s images, %s left", f"{there:,.0f}", f"{self.total:,}", self._left(there))

    def _left(self, there: float) -> str:
        """The time until all are there, at the mean speed so far."""
        made = there - self._first
        if made <= 0:
            return "unknown time"
        return tqdm.format_interval((self.total - there) / made * (time.monotonic() - self._started))
