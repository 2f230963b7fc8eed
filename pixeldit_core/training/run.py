"""A training run from its first step, or the one it stopped at, to its last."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from ..atomic import explain_write_error
from .batches import BatchMaker
from .data.batch import Loaded, collate
from .data.order import Draw
from .engine import Engine, StepResult
from .evaluations import Evaluations, unscored_steps
from .interrupts import Interrupts, leave_to_main_process
from .monitor import Monitor
from .outputs import write_average, write_models, write_sheet, write_snapshots
from .recipe import write_recipe
from .run_folder import RunFolder
from .schedule import learning_rate_at
from .setup import Setup

log = logging.getLogger(__name__)


class Run:
    """One run in one process; every process of it has one.

    Raises:
        ValueError: the folder cannot hold the run, or has a state of another one.
    """

    def __init__(self, setup: Setup, engine: Engine, folder: RunFolder, *, resume: bool) -> None:
        self.setup, self.engine, self.folder = setup, engine, folder
        self.config = setup.config
        engine.prepare(setup.build_loss(engine.device), BatchMaker(setup.model, setup.texts))
        self.order = setup.order(engine.rank, engine.world_size)
        self.step = self._resume() if resume else 0
        self.skipped_in_a_row = 0
        self.monitor: Monitor | None = None
        self.evaluations: Evaluations | None = None
        if engine.is_main:
            folder.clear_parts()
            averages = len(self.config.average.decays) + len(self.config.average.power)
            folder.check_space((3 + averages) * setup.state_bytes, self.config.engine.keep)  # AdamW keeps two of each
            write_recipe(self.config, folder.recipe)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left for this process: no step, and for the main process no score."""
        scores = self.engine.is_main and self.config.engine.evaluate_every > 0 and bool(unscored_steps(self.folder))
        return self.step >= self.config.engine.steps and not scores

    def train(self) -> None:
        """Every step that is left, and every score.

        Raises:
            KeyboardInterrupt: it was asked to stop, and has saved its state.
            ValueError: too many steps in a row without a finite loss.
        """
        try:
            if self.engine.is_main:
                self._open()
            with Interrupts() as interrupts:
                batches = _Lookahead(self._batches())
                for loaded in batches:
                    stop = interrupts.is_asked
                    result = self.engine.step(loaded, self.step, stop, batches.peek)
                    self.step += 1
                    self._after(loaded, result)
                    if result.stop and self.step < self.config.engine.steps:
                        self._stop()
                self._finish_scores(interrupts)
        finally:
            if self.evaluations is not None:
                self.evaluations.close()
            if self.monitor is not None:
                self.monitor.close()

    def _open(self) -> None:
        """What only the main process has."""
        config = self.config
        self.monitor = Monitor(self.folder, config.engine, config.title, self.step)
        if config.engine.evaluate_every:
            device, show = str(self.engine.device), self.monitor.rows.show
            self.evaluations = Evaluations(self.folder, config.evaluate, device, self.step, show)

    def _batches(self) -> Iterator[Loaded]:
        """This process's shares of the global batches that are left."""
        left = range(self.step, self.config.engine.steps)
        workers = self.config.data.workers
        loader = DataLoader(
            self.setup.data,
            batch_sampler=_Shares(self.order.batch(step) for step in left),  # type: ignore[arg-type]  # of draws
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.engine.device.type == "cuda",
            worker_init_fn=leave_to_main_process if workers else None,
            generator=torch.Generator(),  # so that it draws nothing from the global one
        )
        yield from loader

    def _after(self, loaded: Loaded, result: StepResult) -> None:
        """Logs, samples, scores and files of a step."""
        config, step = self.config.engine, self.step
        if self.evaluations is not None:
            self.evaluations.poll()
        if self.monitor is not None:
            self.monitor.report_broken(loaded.broken)
            rate = learning_rate_at(step - 1, self.config.optim, config.steps)
            self.monitor.step(step, step / self.order.steps_per_epoch, rate, config.batch_size, result)
        self._check_skipped(result)
        last = step == config.steps
        is_scored = config.evaluate_every > 0 and (last or step % config.evaluate_every == 0)
        pause = self.monitor is not None and (last or is_scored or step % config.save_every == 0 or self._is_due(step))
        if pause and self.monitor is not None:
            self.monitor.pause_clock()
        if is_scored:  # before the state: a run that goes on from there has it
            self._score()
        if last or step % config.save_every == 0:
            self.save()
        if self.config.average.snapshot_every and step % self.config.average.snapshot_every == 0:
            write_snapshots(self.engine, self.setup, self.folder, step)
        if last or self._is_due(step):
            write_sheet(self.engine, self.setup, self.folder, step)
        if pause and self.monitor is not None:
            self.monitor.draw()
            self.monitor.restart_clock()

    def _is_due(self, step: int) -> bool:
        """Whether a sample sheet is."""
        return self.config.sample.every > 0 and step % self.config.sample.every == 0

    def _score(self) -> None:
        """Queue the average of this step."""
        step, average = self.step, self.engine.whole_network(self.engine.averages.main)
        if self.evaluations is not None:
            self.evaluations.add(step, lambda path: write_average(self.setup, average, path, step))

    def _finish_scores(self, interrupts: Interrupts) -> None:
        if self.evaluations is None or self.evaluations.finish(interrupts.is_asked):
            return
        raise KeyboardInterrupt(
            f"all {self.step} steps are made; stopped while step {self.evaluations.waiting[0]} was evaluated. Go on "
            f"with: python -m pixeldit_core train --resume {self.folder.path}"
        )

    def _check_skipped(self, result: StepResult) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if result.skipped else 0
        if self.skipped_in_a_row < self.config.engine.max_skipped and not self.engine.is_broken:
            return
        problem = (
            f"the loss or a gradient was not finite (NaN or infinity) in {self.skipped_in_a_row} steps in a row, up to "
            f"step {self.step}; none of them changed the weights"
        )
        if self.engine.is_broken:
            problem = f"weights are not finite (NaN or infinity) after step {self.step}; the averages do not have them"
        saved = self.folder.steps()
        kept = f"The state after step {saved[-1]} is in {self.folder.path}" if saved else "No state was saved yet"
        raise ValueError(f"{problem}. {kept}. Lower optim.learning_rate, or lengthen optim.warmup.")

    def _stop(self) -> None:
        if not self.folder.checkpoint(self.step).exists():
            self.save()
        raise KeyboardInterrupt(
            f"stopped after step {self.step} of {self.config.engine.steps}. Go on with: python -m pixeldit_core train "
            f"--resume {self.folder.path}"
        )

    def save(self) -> None:
        """The state to resume from, and the model files.

        Raises:
            ValueError: they cannot be written; the state before is still there.
        """
        notes: dict[str, Any] = {"images": len(self.setup.data), "batch_size": self.config.engine.batch_size}
        try:
            self.engine.save(self.folder, self.step, notes)
            write_models(self.engine, self.setup, self.folder, self.step)
            if not self.config.average.snapshot_every:
                write_snapshots(self.engine, self.setup, self.folder, self.step)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:  # torch has errors of its own
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: Exception) -> ValueError:
        if self.engine.is_main:
            self.folder.clear_parts()
        saved = self.folder.steps()
        kept = f"The state after step {saved[-1]} is in place" if saved else "No state was saved before"
        if isinstance(error, ValueError) and error.__cause__ is None:  # of the weights, not of the disk
            return ValueError(
                f"{self.folder.path}: no model could be written after step {self.step}: {error} {kept}. Lower "
                f"optim.learning_rate, or go on with --resume {self.folder.path} engine.save_dtype=bf16."
            )
        reason, way_out = explain_write_error(error.__cause__ or error, self.folder.path)
        return ValueError(
            f"{self.folder.path} could not be written to after step {self.step}: {reason}. {kept}. {way_out} A lower "
            f"engine.keep needs less space. Then go on with --resume {self.folder.path}."
        )

    def _resume(self) -> int:
        """Load the newest state; its step."""
        step = self.folder.steps()[-1]
        state = self.engine.load(self.folder.checkpoint(step))
        images = len(self.setup.data)
        if state["images"] != images:
            raise ValueError(
                f"{self.folder.path} was trained on {state['images']} images, and there are {images} in "
                f"{self.config.data.path} now: their order would be another one. Restore the data, or start a new run "
                f"with model.start={self.folder.model}."
            )
        if self.engine.is_main:
            log.info("resuming after step %d", step)
            if state["processes"] != self.engine.world_size:
                log.warning(
                    "%d processes in place of %d: the same batches, but sums may differ in their last bits.",
                    self.engine.world_size, state["processes"],
                )  # fmt: skip
        return step


class _Lookahead:
    """An iterator of which the next item can be seen before it is taken."""

    def __init__(self, items: Iterator[Loaded]) -> None:
        self._items, self._seen = items, deque[Loaded | None]()

    def __iter__(self) -> Iterator[Loaded]:
        while (item := self._seen.popleft() if self._seen else next(self._items, None)) is not None:
            yield item

    def peek(self) -> Loaded | None:
        """The next item, or None at the end."""
        if not self._seen:
            self._seen.append(next(self._items, None))
        return self._seen[0]


class _Shares:
    """Draws of the steps that are left, as a batch sampler."""

    def __init__(self, draws: Iterator[list[Draw]]) -> None:
        self._draws = draws

    def __iter__(self) -> Iterator[list[Draw]]:
        return self._draws
