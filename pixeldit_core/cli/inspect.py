"""`inspect`: what a checkpoint file is."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.inspect import CheckpointInfo, inspect_checkpoint
from ..dtypes import dtype_name
from ..settings import SamplingSettings
from ..text import shorten_list
from .options import describe_settings, table

_EXAMPLES = """\
examples:
  python -m pixeldit_core inspect imagenet256_pixeldit_xl_epoch320.ckpt
  python -m pixeldit_core inspect --json models/*.safetensors

Reads headers only. The exit status is 1 if one of the files would not load.
"""


def add_command(commands: Any, **options: Any) -> None:
    """Add `inspect` to the command line."""
    parser = commands.add_parser(
        "inspect",
        help="tell what a file is",
        description="Tells of checkpoint files: family, layout, weights, sizes, classes - or why one does not load.",
        epilog=_EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="a list of objects, one for each file")


def run(options: argparse.Namespace) -> int:
    """Tell of each file; gives the exit status."""
    found = [_look(path) for path in options.files]
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for about in found:
            sys.stdout.write(f"{about['path']}\n{table(_rows(about))}")
    return int(any(about["refused"] for about in found))


def _look(path: Path) -> dict[str, Any]:
    try:
        return _plain(inspect_checkpoint(path))
    except (ValueError, OSError) as error:
        return {"path": str(path), "family": None, "title": "not readable", "refused": str(error)}


def _plain(info: CheckpointInfo) -> dict[str, Any]:
    """Values that JSON has."""
    return {
        "path": str(info.path),
        "family": info.family,
        "title": info.title,
        "layout": info.layout,
        "weights": list(info.weights),
        "parameters": info.count,
        "dtype": dtype_name(info.dtype) if info.dtype else None,
        "quantization": info.quantization,
        "params": asdict(info.params) if info.params else None,
        "class_names": [entry[0] for entry in info.class_names] if info.class_names else None,
        "settings": info.settings.to_dict() if info.settings else None,
        "refused": info.refused,
    }


def _rows(about: dict[str, Any]) -> dict[str, Any]:
    if about["refused"]:
        return {"is": about["title"], "does not load": " ".join(about["refused"].split())}
    params, names, settings = about["params"], about["class_names"], about["settings"]
    rows = {
        "is": about["title"],
        "layout": about["layout"],
        "weights": " and ".join(about["weights"]),
        "parameters": f"{about['parameters']:,}",
        "dtype": about["dtype"],
        "quantized": about["quantization"] or "no",
        "sizes": ", ".join(f"{name} {value}" for name, value in params.items() if value is not None),
    }
    if "num_classes" in params:
        count = f"{params['num_classes']:,}"
        rows["classes"] = f"{count}: {shorten_list(names, 8)}" if names else f"{count}, without names"
    rows["settings"] = describe_settings(SamplingSettings.from_dict(settings)) if settings else "none of its own"
    return rows
