"""Configuration that shapes cannot provide: config.json beside a checkpoint, a diffusers pipeline's files, and what a
trainer wrote into the file. Unrelated config.json files may be in the folder.

The names are those of NVIDIA's repositories and of the three diffusers ports (spec: layouts, section 8).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..families import Family
from ..labels import Names
from ..settings import SamplingSettings
from .json_values import short_repr, short_text
from .locate import PIPELINES, Source, read_json

# What a config.json of a PixelDiT has as its class, type or architecture.
_ARCHITECTURES = (
    "PixelDiTTransformer2DModel",
    "PixelDiTT2ITransformer2DModel",
    "PixelDiTModel",
    "PixDiT_T2I",
    "PixDiT",
    "PixelDiT2Transformer2DModel",
    "PixelDiT2",
    "pixeldit2",
    "pixeldit",
    "pixelhdm",
)


@dataclass(frozen=True)
class Config:
    """The configuration of a checkpoint; empty where there is none."""

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    shift: float | None = None
    steps: float | None = None
    cfg: float | None = None
    labels: Mapping[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    source: str = ""  #           file names, for messages
    certain: bool = False  #      of this checkpoint; else one that contradicts the shapes is ignored

    def params(self, family: Family, from_shapes: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Those values that are params of a family.

        Args:
            from_shapes: params that the shapes determine.
            name: of the checkpoint, for messages.

        Raises:
            ValueError: values of a wrong type.
        """
        fields = {entry.name for entry in dataclasses.fields(family.params)}
        try:
            values = family.config_params(self.values, from_shapes)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{name}: {self.source} is not readable ({short_text(error)}).") from error
        return {key: value for key, value in values.items() if key in fields and value is not None}

    def contradicts(self, from_shapes: Mapping[str, Any]) -> bool:
        """Whether params that the shapes determine have other values here."""
        declared = ((key, self.values.get(key)) for key in from_shapes)
        return any(value is not None and value != from_shapes[key] for key, value in declared)

    def class_names(self, count: int) -> Names | None:
        """Names of `count` classes; a class without one is named by its number."""
        if not self.labels or not count:
            return None
        return tuple(self.labels.get(index, (f"class {index}",)) for index in range(count))

    def settings(self, family: Family, params: Any, name: str) -> SamplingSettings | None:
        """The family's settings with this config's values; None if that changes nothing.

        Raises:
            ValueError: numbers that no sampling can have.
        """
        side = self.values.get("sample_size") or self.values.get("image_size")
        size = (side, side) if type(side) is int and side > 0 else None
        steps = self.steps and max(1, round(self.steps))
        declared = {"timeshift": self.shift, "steps": steps, "cfg": self.cfg, "size": size}
        declared = {key: value for key, value in declared.items() if value is not None}
        try:
            settings = SamplingSettings.from_dict(family.default_settings(params, size).to_dict() | declared)
        except ValueError as error:
            raise ValueError(f"{name}: {self.source} beside it is not usable: {short_text(error)}") from error
        return None if settings == family.default_settings(params, None) else settings


def read_config(source: Source) -> Config:
    """The configuration beside a checkpoint.

    Raises:
        ValueError: a file that is for this checkpoint and not readable, or has values of a wrong type.
    """
    values, files = _read_config_json(source.folder / "config.json", source), []
    if values:
        files.append("config.json")

    def number(key: str, values: Mapping[str, Any] = values) -> float | None:
        return _positive(values.get(key), key, source, files)

    shift, steps, cfg = number("flow_shift"), number("default_steps"), number("default_cfg_scale")
    if shift is None and isinstance(scheduler := values.get("scheduler"), Mapping):  # NVIDIA's
        shift = number("flow_shift", scheduler)
    labels: dict[int, tuple[str, ...]] = {}
    if source.pipeline:
        for file in (source.pipeline / "scheduler" / name for name in ("scheduler_config.json", "config.json")):
            if shift is None and file.is_file():
                files.append(f"scheduler/{file.name}")
                shift = number("shift", read_json(file))
        for file in (source.pipeline / name for name in PIPELINES):
            if file.is_file():
                files.append(file.name)
                labels = dict(_labels(read_json(file).get("id2label")))
    return Config(values, shift, steps, cfg, labels, ", ".join(files), source.pipeline is not None)


def embedded_config(metadata: Mapping[str, str]) -> Config:
    """The configuration that a trainer wrote into the file itself."""
    try:
        values = json.loads(metadata.get("config") or "{}")
    except (ValueError, RecursionError):  # another program's, in a format of its own
        return Config()
    if not isinstance(values, dict):
        return Config()
    entries = {key: metadata[key] for key in ("model_type", "dataset_name") if key in metadata}
    return Config(entries | values, source="the config inside of it", certain=True)


def _read_config_json(path: Path, source: Source) -> dict[str, Any]:
    """A config.json; empty if there is none, or if it is of another model."""
    if not path.is_file():
        return {}
    try:
        values = read_json(path)
    except ValueError:
        if source.pipeline:
            raise
        return {}
    kinds = [values.get(name) for name in ("_class_name", "model_type", "time_convention")]
    if isinstance(architectures := values.get("architectures"), list):
        kinds += architectures
    return values if any(kind in _ARCHITECTURES for kind in kinds) else {}


def _positive(value: Any, key: str, source: Source, files: list[str]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
        raise ValueError(
            f"{source.name}: in {files[-1]} {key} is {short_repr(value)}, expected a number above 0. Correct it there."
        )
    return float(value)


def _labels(value: Any) -> Iterator[tuple[int, tuple[str, ...]]]:
    """From {"0": "tench, Tinca tinca"} to names and synonyms by class."""
    for key, text in value.items() if isinstance(value, Mapping) else ():
        names = tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else ()
        if names and key.isdecimal() and len(key) < 10:
            yield int(key), names
