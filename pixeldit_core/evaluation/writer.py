"""Images written by threads while the next batch is computed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from ..images import to_pil, write_png

_THREADS = 4
_WAITING = 256  # images, at most


class Writer:
    """Writes PNG files in the background. Use it as a context manager: at its end every file is written.

    Raises:
        OSError: a file could not be written, raised by the next call or at the end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "png")
        self._waiting: deque[Future[None]] = deque()

    def put(self, image: Tensor, path: Path, values: dict[str, Any]) -> None:
        """Write uint8 [H, W, C] soon; waits while many others are not written yet."""
        while len(self._waiting) >= _WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        (converted,) = to_pil(image[None])
        self._waiting.append(self._pool.submit(write_png, converted, path, values))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=isinstance(error, OSError))
        if kind is None:
            for future in self._waiting:
                future.result()
