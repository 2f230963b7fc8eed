"""run.json: what the images of a folder are, so that images of two runs never mix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..atomic import atomic_path

VERSION = 1
_NAME = "run.json"


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
        raise ValueError(f"{folder} cannot be written to ({error}). Name another folder with --out.") from error


def read_run(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None = it has none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        record = json.loads((folder / _NAME).read_text("utf-8"))
        if not all(isinstance(number, int) for number in (record["count"], *record["shape"])):
            raise TypeError("count and shape are not whole numbers")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / _NAME} is not a record of a run ({error!r}). Move the folder away and generate again."
        ) from error
    return record


def _refuse_unknown(folder: Path) -> None:
    unknown = next((entry.name for entry in folder.iterdir() if entry.name in ("images", "samples.npz")), None)
    if unknown is not None:
        raise ValueError(
            f"{folder} has {unknown} and no {_NAME}, so nothing is known of its images. Name another folder with --out."
        )


def _create(path: Path, record: Mapping[str, Any]) -> None:
    """Write a file unless there is one: of programs that start at once, one is first and the others compare."""
    with atomic_path(path.with_name(f"{path.name}.new")) as part:
        part.write_text(json.dumps(record, indent=1), "utf-8")
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(part, path)
            part.touch()
    path.with_name(f"{path.name}.new").unlink(missing_ok=True)


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
