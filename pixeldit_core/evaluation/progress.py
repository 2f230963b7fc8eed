"""A progress bar over all processes and machines: it counts the files in their common folder."""

from __future__ import annotations

import threading
from types import TracebackType

from tqdm import tqdm

from .image_folder import PER_FOLDER, ImageFolder

_BAR = "{percentage:3.0f}%|{bar}| {n:.0f}/{total} images [{elapsed}<{remaining}, {rate_fmt}]"
_EVERY = 2.0  # seconds


class Progress:
    """Shows how many of `count` images are there, and when all will be; refreshed by a thread of its own.

    Folders of which every image is there are not listed again.
    """

    def __init__(self, folder: ImageFolder, count: int, *, shown: bool = True) -> None:
        self.folder, self.total = folder, count
        self._there: dict[int, int] = {}  # images of each folder
        self._stop = threading.Event()
        hidden = None if shown else True  # None: where there is no terminal
        self.bar = tqdm(total=count, initial=self.count(), bar_format=_BAR, unit=" images", leave=False, disable=hidden)
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
        if not self.bar.disable:
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
        while not self._stop.wait(_EVERY):
            self.bar.n = min(self.total, self.count() + self._fraction)
            self.bar.refresh()
