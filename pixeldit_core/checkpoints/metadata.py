"""What our own files declare about themselves, as JSON under one key of the safetensors metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..labels import Names
from ..settings import SamplingSettings
from ..spec import About, ModelSpec
from .json_values import short_text
from .weight_sets import role_of, said_by_file_name

KEY = "pixeldit"
ABOUT = "modelspec."  # keys of title, author, license ... that other programs read, too (Stability's ModelSpec)
_LONGEST = 4096  # characters of such a value; a thumbnail is longer
DEPTH = "encoder_depth"  # the param that says whether a network has its encoder


@dataclass(frozen=True)
class Declared:
    """The metadata of a file; None or empty for what it does not have."""

    family: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    class_names: Names | None = None
    settings: SamplingSettings | None = None
    weights: str = ""  # "ema" or "raw"
    about: About = ()


def write_metadata(spec: ModelSpec, origin: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The metadata of a file: family, params, class names, settings and what is said about it.

    `origin`: what it was made from.

    Of a network with a place for an encoder, also whether the file has it.
    """
    params = asdict(spec.params)
    values: dict[str, Any] = {"family": spec.family.name, "params": params}
    if (depth := params.pop(DEPTH, None)) is not None:  # the tensors decide: the file may be loaded with another one
        values["encoder"] = depth > 0
    if spec.class_names is not None:
        values["class_names"] = [list(entry) for entry in spec.class_names]
    if spec.settings is not None:
        values["settings"] = spec.settings.to_dict()
    if origin:
        values["origin"] = dict(origin)
    if weights := (origin or {}).get("weights", spec.weights):
        values["weights"] = weights
    return {"format": "pt", KEY: json.dumps(values), **{ABOUT + name: text for name, text in spec.about}}


def read_metadata(metadata: Mapping[str, str], source: str) -> Declared:
    """The inverse.

    Raises:
        ValueError: the entry is there and not readable.
    """
    about = tuple(
        (name.removeprefix(ABOUT), text)
        for name, text in sorted(metadata.items())
        if name.startswith(ABOUT) and len(text) <= _LONGEST
    )
    if KEY not in metadata:
        return Declared(about=about)
    try:
        values = json.loads(metadata[KEY])
        names, settings = values.get("class_names"), values.get("settings")
        return Declared(
            family=str(values["family"]) if "family" in values else None,
            params=dict(values.get("params", {})),
            class_names=_class_names(names) if names else None,
            settings=SamplingSettings.from_dict(settings) if settings else None,
            about=about,
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f'{source}: its metadata entry "{KEY}" is not readable ({short_text(error)}). The file is damaged: get it '
            "again."
        ) from error


def declared_weights(metadata: Mapping[str, str], name: str, folder: str = "") -> str:
    """Which weights a file says that it holds, in our own metadata or by its name; "ema", "raw" or empty.

    OpenAI's trainers write `ema_0.9999_050000.pt`, NeMo's `last-EMA.ckpt`, accelerate's the folder `transformer_ema`,
    with nothing in them that says so.

    Args:
        folder: the name of the file's, which counts if it has no other words than a set of weights has.
    """
    try:
        weights = json.loads(metadata.get(KEY, "{}")).get("weights")
    except (ValueError, TypeError, AttributeError, RecursionError):
        weights = None
    if weights in ("ema", "raw"):
        return weights
    said = said_by_file_name(name)
    if said is None and role_of(folder, strict=True) == "ema":
        said = said_by_file_name(folder)
    return said or ""


def _class_names(values: Any) -> Names:
    names = tuple((entry,) if isinstance(entry, str) else tuple(entry) for entry in values)
    if not all(entry and all(isinstance(name, str) for name in entry) for entry in names):
        raise ValueError("a class has no name, or one that is not a string")
    return names
