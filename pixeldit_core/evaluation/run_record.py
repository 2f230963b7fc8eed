"""run.json: what the images of a folder are, so that images of two runs never mix."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..atomic import atomic_path, explain_write_error
from .plan import LARGEST_SEED

VERSION = 1
_NAME = "run.json"
_LARGEST = 2**16  # pixels of a side


def open_run(folder: Path, identity: Mapping[str, Any], extent: Mapping[str, Any]) -> None:
    """Record what a folder's images are, or check that they are the same.

    Args:
        identity: plain values that decide the images.
        extent: "count" of images, and what follows from it: all that may change.

    Raises:
        ValueError: the folder has images of another run, or of which nothing is known, or cannot be written to.
    """
    identity = json.loads(json.dumps({"version": VERSION, **identity}))
    extent = dict(extent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if read_run(folder) is None:
            _refuse_unknown(folder)
            _create(folder / _NAME, {**extent, **identity})
        found = read_run(folder) or {}
        if different := list(differences({**found, **extent}, {**extent, **identity})):
            raise ValueError(
                f"{folder} has images of another run: {'; '.join(different[:4])}. Name another folder with --out, or "
                "give the options that it was made with."
            )
        if found != {**found, **extent}:
            with atomic_path(folder / _NAME) as part:
                part.write_text(json.dumps({**found, **extent}, indent=1), "utf-8")
    except OSError as error:
        reason, _ = explain_write_error(error, folder)
        raise ValueError(f"{folder} cannot be written to: {reason}. Name another folder with --out.") from error


def read_run(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None = it has none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        record = json.loads((folder / _NAME).read_text("utf-8"))
        _check_record(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder / _NAME} is not a record of a run ({error!r}). Restore it, or move the folder away and generate "
            "again."
        ) from error
    return record


def _check_record(record: Any) -> None:
    """Raises TypeError, KeyError or ValueError unless what is read of a record later is of its kind."""
    if not isinstance(record, dict):
        raise TypeError(f"a {type(record).__name__} in place of an object")
    count, shape, names = record["count"], record["shape"], record["class_names"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int for side in (count, *shape))):
        raise TypeError("count and shape are not whole numbers")
    height, width, channels = shape
    if not (1 <= count <= LARGEST_SEED and min(height, width) >= 1 and max(height, width) <= _LARGEST):
        raise ValueError(f"{count} images of {width} x {height} pixels")
    if channels not in (1, 3):
        raise ValueError(f"images of {channels} channels")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise TypeError("class_names is not a list of names")
    if not isinstance(record["classes"], int | None):
        raise TypeError("classes is not a number")


def _refuse_unknown(folder: Path) -> None:
    unknown = next((entry.name for entry in folder.iterdir() if entry.name in ("images", "samples.npz")), None)
    if unknown is not None:
        raise ValueError(
            f"{folder} has {unknown} and no {_NAME}, so nothing is known of its images. Name another folder with --out."
        )


def _create(path: Path, record: Mapping[str, Any]) -> None:
    """Write a file unless there is one: of programs that start at once, one is first and the others compare."""
    text = json.dumps(record, indent=1)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.write_text(text, "utf-8")
        _link(part, path, text)
    finally:
        part.unlink(missing_ok=True)


def _link(part: Path, path: Path, text: str) -> None:
    """Give a file its name, unless another has it."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with path.open("x", encoding="utf-8") as file:
                file.write(text)


def differences(found: Any, expected: Any, name: str = "") -> Iterator[str]:
    """What differs between two records, for messages; nested names are dotted."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*found, *(key for key in expected if key not in found)]:
            yield from differences(found.get(key), expected.get(key), f"{name}.{key}" if name else key)
    elif found != expected:
        yield f"{name} is {_short(found)} there, and {_short(expected)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
