"""`inspect`: what a checkpoint contains."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.inspect import CheckpointInfo, inspect_checkpoint
from ..dtypes import dtype_name
from ..settings import SamplingSettings
from ..text import printable, shorten_list
from .text import describe_settings, encoder_row, table

_ABOUT = ("title", "author", "license", "description")  # of what the file says of itself: shown; JSON has all

_EXAMPLES = """\
examples:
  python -m pixeldit_core inspect imagenet256_pixeldit_xl_epoch320.ckpt
  python -m pixeldit_core inspect --json models/*.safetensors

Reads headers only. The exit status is 1 if a file cannot be loaded.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `inspect` to the command line."""
    parser = commands.add_parser(
        "inspect",
        help="show what a file contains",
        description="Shows what a checkpoint contains, or why it cannot be loaded.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="write a list of objects, one per file")


def run(options: argparse.Namespace) -> int:
    """Inspect each file; returns the exit status."""
    reports = [_inspect(path) for path in options.files]
    if options.json:
        sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    else:
        for report in reports:
            sys.stdout.write(f"{report['path']}\n{table(_rows(report))}")
    return int(any(report["refused"] for report in reports))


def _inspect(path: Path) -> dict[str, Any]:
    try:
        return _json_values(inspect_checkpoint(path))
    except (ValueError, OSError) as error:
        return {"path": str(path), "family": None, "title": "not readable", "refused": str(error)}


def _json_values(info: CheckpointInfo) -> dict[str, Any]:
    return {
        "path": str(info.path),
        "family": info.family,
        "title": info.title,
        "layout": info.layout,
        "weights": list(info.weights),
        "sets": dict(info.sets),
        "parameters": info.count,
        "dtype": dtype_name(info.dtype) if info.dtype else None,
        "quantization": info.quantization,
        "encoder": info.encoder,
        "params": asdict(info.params) if info.params else None,
        "class_names": [entry[0] for entry in info.class_names] if info.class_names else None,
        "settings": info.settings.to_dict() if info.settings else None,
        "about": dict(info.spec.about) if info.spec else {},
        "refused": info.refused,
    }


def _describe_sets(sets: dict[str, str]) -> str:
    return ", ".join(f"{role} ({name})" for name, role in sets.items())


def _rows(report: dict[str, Any]) -> dict[str, Any]:
    if report["refused"]:
        return {"is": report["title"], "cannot be loaded": " ".join(report["refused"].split())}
    params, names, settings = report["params"], report["class_names"], report["settings"]
    rows = {
        "is": report["title"],
        "layout": report["layout"],
        "weights": _describe_sets(report["sets"]) if len(report["sets"]) > 1 else report["weights"][0],
        "parameters": f"{report['parameters']:,}",
        "dtype": report["dtype"],
        "quantized": report["quantization"] or "no",
        "sizes": ", ".join(f"{name} {value}" for name, value in params.items() if value is not None),
    }
    rows |= encoder_row(report["encoder"])
    if "num_classes" in params:
        count = f"{params['num_classes']:,}"
        rows["classes"] = f"{count}: {shorten_list(names, 8)}" if names else f"{count}, without names"
    rows["settings"] = describe_settings(SamplingSettings.from_dict(settings)) if settings else "none in the file"
    about = report["about"]
    return rows | {name: textwrap.shorten(printable(about[name]), 200) for name in _ABOUT if name in about}
