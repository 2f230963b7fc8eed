"""The folder of a run: where its files are, and checkpoints that are complete or not there."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..atomic import explain_write_error

_STEP = re.compile(r"step-(\d+)")


def step_name(step: int) -> str:
    """ "step-000500": sorts as the steps do."""
    return f"step-{step:06d}"


def _steps_in(folder: Path) -> list[int]:
    """Steps that sub-folders are named after, in their order."""
    if not folder.is_dir():
        return []
    matches = (_STEP.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in matches if match)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Every setting of the run."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """One row for each logged step."""
        return self.path / "log.csv"

    @property
    def curve(self) -> Path:
        """The loss over the steps."""
        return self.path / "loss.png"

    @property
    def checkpoints(self) -> Path:
        """Training states to resume from."""
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Power-function averages."""
        return self.path / "snapshots"

    @property
    def model(self) -> Path:
        """The newest average, for the loader node."""
        return self.path / "model.safetensors"

    @property
    def encoder(self) -> Path | None:
        """The file that has a frozen encoder inside, if the run's network has one."""
        return self.model if self.model.is_file() else None

    @property
    def raw_model(self) -> Path:
        """The newest weights themselves."""
        return self.path / "model-raw.safetensors"

    @property
    def lora(self) -> Path:
        """The newest average of a LoRA, for the LoRA node."""
        return self.path / "lora.safetensors"

    @property
    def raw_lora(self) -> Path:
        """Its newest weights themselves."""
        return self.path / "lora-raw.safetensors"

    @property
    def evaluations(self) -> Path:
        """Folders of `evaluate`, one for each step that is scored."""
        return self.path / "evaluations"

    @property
    def scores(self) -> Path:
        """One row for each scored step."""
        return self.evaluations / "scores.csv"

    def evaluation(self, step: int) -> Path:
        """The folder of `evaluate` for one step."""
        return self.evaluations / step_name(step)

    def evaluated_steps(self) -> list[int]:
        """Steps that have such a folder, oldest first, whatever is in it."""
        return _steps_in(self.evaluations)

    def sample_sheet(self, step: int) -> Path:
        """Images of one step."""
        return self.path / "samples" / f"{step_name(step)}.png"

    def steps(self) -> list[int]:
        """Steps with a complete training state, oldest first."""
        return _steps_in(self.checkpoints)

    def checkpoint(self, step: int) -> Path:
        """The training state of a step."""
        return self.checkpoints / step_name(step)

    def part(self, step: int) -> Path:
        """Where a training state is written before it is complete."""
        return self.checkpoints / f".{step_name(step)}.part"

    def complete(self, step: int, keep: int) -> None:
        """Rename a written training state to its name, then remove all but the newest `keep`."""
        target, part = self.checkpoint(step), self.part(step)
        if target.exists():  # of this very step: replaced as a whole
            shutil.rmtree(target)
        os.replace(part, target)
        for old in self.steps()[: -max(keep, 1)]:
            shutil.rmtree(self.checkpoint(old), ignore_errors=True)

    def clear_parts(self) -> None:
        """Remove what a killed run was writing."""
        for part in self.checkpoints.glob(".step-*.part") if self.checkpoints.is_dir() else ():
            shutil.rmtree(part, ignore_errors=True)

    def prepare(self) -> None:
        """Make the folder and try that it can be written to.

        Raises:
            ValueError: it cannot.
        """
        probe = self.path / f".write-test.{os.getpid()}"
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            reason, _ = explain_write_error(error, self.path)
            raise ValueError(
                f"the run folder {self.path} cannot be written to: {reason}. Name another: --out."
            ) from error

    def check_space(self, state_bytes: int, keep: int) -> None:
        """Raises ValueError unless the disk has room for the training states that are kept at once."""
        needed = state_bytes * (keep + 1 - min(len(self.steps()), keep))
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise ValueError(
                f"the run keeps {keep} checkpoints of {state_bytes / 1e6:,.1f} MB and one while it is written; the "
                f"disk of {self.path} has {free / 1e6:,.1f} MB. Lower engine.keep, or name another folder: --out."
            )


def find_run(path: Path) -> RunFolder:
    """The run to resume.

    Raises:
        ValueError: the path is no run folder, or has no complete checkpoint.
    """
    if path.is_file():
        raise ValueError(f"{path} is a file; to resume, name the folder of the run. (model.start fine-tunes a file.)")
    run = RunFolder(path)
    if not run.recipe.is_file():
        reason = "has no recipe.yaml" if path.is_dir() else "is not there"
        raise ValueError(f"{path} {reason}; to resume, name the folder of an earlier run.")
    if not run.steps():
        raise ValueError(f"{path} has no complete checkpoint to resume from; start it again without --resume.")
    return run
