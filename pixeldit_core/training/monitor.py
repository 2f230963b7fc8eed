"""What a run shows while it trains: progress, log, loss curve."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

import torch
from tqdm import tqdm

from .config import EngineConfig
from .curve import draw_loss_curve
from .engine import StepResult
from .run_folder import RunFolder
from .run_log import RunLog

log = logging.getLogger(__name__)


class Monitor:
    """Of the main process; the others have none.

    Losses are means over the steps since the last logged one.
    """

    def __init__(self, run: RunFolder, config: EngineConfig, title: str, start: int) -> None:
        self.run, self.config, self.title = run, config, title
        self.rows = RunLog(run.log, start, tensorboard=run.path / "tensorboard" if config.tensorboard else None)
        self.bar = tqdm(total=config.steps, initial=start, unit="step", desc=title or None, mininterval=0.5)
        self.window: list[StepResult] = []
        self.images, self.since = 0, time.monotonic()
        self.skipped = self.broken = 0

    def step(self, step: int, epoch: float, rate: float, images: int, result: StepResult) -> None:
        """After the step that made `step` of them."""
        self.bar.update()
        self.images += images
        self.skipped += result.skipped
        if not result.skipped:
            self.window.append(result)
        if step % self.config.log_every == 0 or step == self.config.steps:
            self._log(step, epoch, rate)

    def report_broken(self, problems: Iterable[str]) -> None:
        """Images that could not be read: each is counted, the first ten are named."""
        for problem in problems:
            self.broken += 1
            if self.broken <= 10:
                self.bar.write(f"left out: {problem}")

    def restart_clock(self) -> None:
        """After something that is not training: it does not count as time of the steps."""
        self.since += time.monotonic() - self._paused

    def pause_clock(self) -> None:
        """Before it."""
        self._paused = time.monotonic()

    def draw(self) -> None:
        """The loss curve so far."""
        draw_loss_curve(self.rows.read(), self.run.curve, title=self.title)

    def close(self) -> None:
        """Write what is left."""
        self.bar.close()
        self.rows.close()

    def _log(self, step: int, epoch: float, rate: float) -> None:
        speed = self.images / max(time.monotonic() - self.since, 1e-9)
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "loss": float("nan")}
        if self.window:
            count = len(self.window)
            row["loss"] = sum(result.loss for result in self.window) / count
            row["grad_norm"] = sum(result.grad_norm for result in self.window) / count
            names = self.window[-1].parts if len(self.window[-1].parts) > 1 else ()
            row |= {name: sum(result.parts.get(name, 0.0) for result in self.window) / count for name in names}
        row |= {"learning_rate": rate, "images_per_second": round(speed, 2)}
        row |= {"skipped": self.skipped, "broken": self.broken, "memory_gb": _memory()}
        self.rows.write(row)
        shown = {"loss": f"{row['loss']:.4f}", "img/s": f"{speed:.0f}", "lr": f"{rate:.1e}"}
        self.bar.set_postfix(shown | ({"skipped": self.skipped} if self.skipped else {}), refresh=False)
        self.window, self.images, self.since = [], 0, time.monotonic()


def _memory() -> float:
    """The most that the accelerator has held, in GB."""
    if not torch.accelerator.is_available() or not hasattr(torch.accelerator, "max_memory_allocated"):
        return 0.0
    return round(torch.accelerator.max_memory_allocated() / 1e9, 3)
