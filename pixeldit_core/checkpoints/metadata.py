"""What our own files say of themselves, as JSON under one key of the safetensors metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..settings import SamplingSettings
from ..spec import ModelSpec
from .json_values import brief

KEY = "pixeldit"


def write_metadata(spec: ModelSpec, origin: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The metadata of a file: family, params, class names and settings; `origin`: what it was made from."""
    about: dict[str, Any] = {"family": spec.family.name, "params": asdict(spec.params)}
    if spec.class_names is not None:
        about["class_names"] = [list(entry) for entry in spec.class_names]
    if spec.settings is not None:
        about["settings"] = spec.settings.to_dict()
    if origin:
        about["origin"] = dict(origin)
    return {"format": "pt", KEY: json.dumps(about)}


def read_metadata(metadata: dict[str, str], source: str) -> dict[str, Any]:
    """The inverse: a dictionary with those of family, params, class_names and settings that the file has.

    Raises:
        ValueError: the entry is there and not readable.
    """
    if KEY not in metadata:
        return {}
    try:
        about = json.loads(metadata[KEY])
        found: dict[str, Any] = {}
        if "family" in about:
            found["family"] = str(about["family"])
        if "params" in about:
            found["params"] = dict(about["params"])
        if names := about.get("class_names"):
            found["class_names"] = tuple((entry,) if isinstance(entry, str) else tuple(entry) for entry in names)
            if not all(entry and all(isinstance(name, str) for name in entry) for entry in found["class_names"]):
                raise ValueError("a class has a name that is no text, or none")
        if settings := about.get("settings"):
            found["settings"] = SamplingSettings.from_dict(settings)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f'{source}: its metadata entry "{KEY}" is not readable ({brief(error)}).') from error
    return found
