"""Ctrl-C and SIGTERM as a wish to stop after the step."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType, TracebackType

log = logging.getLogger(__name__)

_ONE_WISH = 3.0  # seconds: launchers pass on a Ctrl-C that the terminal has sent to every process already


class Interrupts:
    """While active, the first Ctrl-C or SIGTERM sets `asked`; a second Ctrl-C, some seconds later, interrupts."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._since = 0.0
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal.signal returned it

    def is_asked(self) -> bool:
        """Whether to stop."""
        return self.asked is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked, self._since = signal.Signals(number), time.monotonic()
            log.warning("%s: stopping after this step; the run can be resumed.", self.asked.name)
        elif number == signal.SIGINT and time.monotonic() - self._since > _ONE_WISH:
            raise KeyboardInterrupt


def leave_to_main_process(worker: int = 0) -> None:
    """In a process that reads data: Ctrl-C reaches it as well, and must not end it before the last batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
