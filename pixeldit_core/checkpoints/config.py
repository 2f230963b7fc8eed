"""What tells of a checkpoint what its shapes do not: config.json beside it, the files of a diffusers pipeline, and the
configuration that a trainer wrote into the file.

The names are those of NVIDIA's repositories and of the three diffusers ports (spec: layouts, section 8).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..families import Family
from ..labels import Names
from ..settings import SamplingSettings
from .json_values import brief, shown
from .locate import PIPELINES, Source, read_json

_NUMBERS = ("flow_shift", "default_steps", "default_cfg_scale")
# How a config.json says that it is of a PixelDiT: others lie beside checkpoints by chance.
_OURS = (
    "PixelDiTTransformer2DModel",
    "PixelDiTT2ITransformer2DModel",
    "PixelDiTModel",
    "PixDiT_T2I",
    "PixDiT",
    "pixeldit",
    "pixelhdm",
)


@dataclass(frozen=True)
class Config:
    """What is known from beside a checkpoint; empty where nothing lies there."""

    values: Mapping[str, Any] = field(default_factory=dict)
    shift: float | None = None
    steps: float | None = None
    cfg: float | None = None
    labels: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""  #    file names, for messages
    strict: bool = False  # surely of this checkpoint; else one that contradicts it lies there by chance

    def params(self, family: Family, told: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Those values that the params of a family have; `told` is what shapes say, `name` is for messages.

        Raises:
            ValueError: parts of another kind than they should be.
        """
        known = {entry.name for entry in dataclasses.fields(family.params)}
        try:
            values = family.config_params(self.values, told)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{name}: {self.source} is not readable ({brief(error)}).") from error
        return {key: value for key, value in values.items() if key in known and value is not None}

    def contradicts(self, sizes: Mapping[str, Any]) -> bool:
        """Whether sizes that the shapes tell are others here."""
        told = ((key, self.values.get(key)) for key in sizes)
        return any(value is not None and value != sizes[key] for key, value in told)

    def class_names(self, count: int) -> Names | None:
        """Names of `count` classes; a class without one is named by its number."""
        if not self.labels or not count:
            return None
        return tuple(self.labels.get(index, (f"class {index}",)) for index in range(count))

    def settings(self, family: Family, params: Any, name: str) -> SamplingSettings | None:
        """The family's settings with what the config says otherwise; None if it says nothing new.

        Raises:
            ValueError: numbers that no sampling can have.
        """
        side = self.values.get("sample_size") or self.values.get("image_size")
        size = (side, side) if type(side) is int and side > 0 else None
        steps = self.steps and max(1, round(self.steps))
        told = {"timeshift": self.shift, "steps": steps, "cfg": self.cfg, "size": size}
        told = {key: value for key, value in told.items() if value is not None}
        try:
            settings = SamplingSettings.from_dict(family.default_settings(params, size).to_dict() | told)
        except ValueError as error:
            raise ValueError(f"{name}: {self.source} beside it is not usable: {brief(error)}") from error
        return None if settings == family.default_settings(params, None) else settings


def read_config(source: Source) -> Config:
    """What lies beside a checkpoint.

    Raises:
        ValueError: a file that is for this checkpoint and not readable, or has values of a wrong kind.
    """
    values, names = {}, []
    beside = source.folder / "config.json"
    if beside.is_file() and (found := _read_ours(beside, source)):
        values, names = found, [beside.name]
    told = {name: _number(values.get(name), name, source, names) for name in _NUMBERS}
    shift = told["flow_shift"]
    if shift is None and isinstance(values.get("scheduler"), Mapping):  # NVIDIA's
        shift = _number(values["scheduler"].get("flow_shift"), "flow_shift", source, names)
    labels: dict[int, tuple[str, ...]] = {}
    if source.pipeline:
        for file in (source.pipeline / "scheduler" / name for name in ("scheduler_config.json", "config.json")):
            if shift is None and file.is_file():
                names.append(f"scheduler/{file.name}")
                shift = _number(read_json(file).get("shift"), "shift", source, names)
        for file in (source.pipeline / name for name in PIPELINES):
            if file.is_file():
                names.append(file.name)
                labels = dict(_labels(read_json(file).get("id2label")))
    sampling = (shift, told["default_steps"], told["default_cfg_scale"])
    return Config(values, *sampling, labels, ", ".join(names), source.pipeline is not None)


def config_inside(metadata: Mapping[str, str]) -> Config:
    """What a trainer wrote into the file itself, beside the tensors."""
    try:
        values = json.loads(metadata.get("config") or "{}")
    except (ValueError, RecursionError):  # of another writer, in a format of its own
        return Config()
    if not isinstance(values, dict):
        return Config()
    plain = {key: metadata[key] for key in ("model_type", "dataset_name") if key in metadata}
    return Config(plain | values, source="the config inside of it", strict=True)


def _read_ours(path: Any, source: Source) -> dict[str, Any] | None:
    """A config.json that is for a PixelDiT; None for another model's, which lies there by chance."""
    try:
        found = read_json(path)
    except ValueError:
        if source.pipeline:
            raise
        return None
    kinds = [found.get(name) for name in ("_class_name", "model_type", "time_convention")]
    return found if any(kind in _OURS for kind in (*kinds, *_list(found.get("architectures")))) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any, name: str, source: Source, files: list[str]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
        raise ValueError(f"{source.name}: in {files[-1]} {name} is {shown(value)}, and should be a number above 0.")
    return float(value)


def _labels(value: Any) -> Iterator[tuple[int, tuple[str, ...]]]:
    """From {"0": "tench, Tinca tinca"} to names and synonyms by class."""
    for key, text in value.items() if isinstance(value, Mapping) else ():
        names = tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else ()
        if names and key.isdecimal() and len(key) < 10:
            yield int(key), names
