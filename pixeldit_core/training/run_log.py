"""The log of a run: a CSV file with one row for each logged step, and TensorBoard if asked for."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..extras import require

Row = dict[str, str]


class RunLog:
    """Appends rows, each on the disk at once.

    Args:
        start: the step that the run goes on from: later rows, of a run that was killed after it had saved, are dropped.
        tensorboard: its folder; None = none.
    """

    def __init__(self, path: Path, start: int, tensorboard: Path | None = None) -> None:
        self.path = path
        kept = [row for row in read_rows(path) if float(row["step"]) <= start] if start else []
        self.columns = list(kept[0]) if kept else []
        if path.exists():
            self._rewrite(kept)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._board: Any = None
        if tensorboard is not None:
            require("tensorboard")
            from torch.utils.tensorboard.writer import SummaryWriter

            self._board = SummaryWriter(str(tensorboard), purge_step=start + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; a column that the file does not have yet is added to all rows."""
        if not set(row) <= set(self.columns):
            known = read_rows(self.path)
            self.columns += [name for name in row if name not in self.columns]
            self._file.close()
            self._rewrite(known)
            self._file = self.path.open("a", newline="", encoding="utf-8")
        self._file.write(_line([row.get(name, "") for name in self.columns]))
        self._file.flush()
        self.show(row)

    def show(self, row: Mapping[str, Any]) -> None:
        """Give the numbers of a row to TensorBoard only; its step may be an earlier one."""
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(name, value, row["step"])

    def read(self) -> list[Row]:
        """All rows so far."""
        return read_rows(self.path)

    def close(self) -> None:
        """Close its files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _rewrite(self, rows: list[Row]) -> None:
        write_rows(self.path, self.columns, rows)


def read_rows(path: Path) -> list[Row]:
    """The complete rows of a log; a last line that was cut off is left out."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "replace").replace("\0", "")  # as a computer that lost power may leave
    rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
    return [row for row in rows if None not in row and None not in row.values() and _is_number(row.get("step"))]


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole log, completely or not at all; a row without a column has nothing there."""
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    with atomic_path(path) as part:
        part.write_text("".join(map(_line, lines)) if columns else "", encoding="utf-8", newline="")


def _line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False
