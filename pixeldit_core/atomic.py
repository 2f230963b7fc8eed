"""Atomic file writes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` when the block succeeds, removed when it raises.

    Its name is drawn, because programs on other machines that share the folder may have the same process id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # of a new file here; some writers make theirs readable by the owner only
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
