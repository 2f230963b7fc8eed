"""Recipes: a training run as a YAML file, and `key=value` overrides of it."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..extras import require
from .config import TrainConfig


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """A recipe with overrides such as "optim.learning_rate=1e-4".

    Raises:
        ValueError: no such file, not YAML, an unknown key (the nearest is named) or a value of the wrong type.
    """
    values = _parse(path)
    for override in overrides:
        _apply(values, override)
    return from_values(values, path.name)


def from_values(values: Mapping[str, Any], source: str) -> TrainConfig:
    """Nested plain values -> the run that they describe.

    Raises:
        ValueError: an unknown key or a value of the wrong type.
    """
    pydantic = require("pydantic")
    try:
        return pydantic.TypeAdapter(TrainConfig).validate_python(values)
    except pydantic.ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors()[:4])
        raise ValueError(f"{source}: {problems}.") from error


def to_values(config: TrainConfig) -> dict[str, Any]:
    """The inverse of `from_values`: nested plain values for YAML and JSON."""
    return _plain(dataclasses.asdict(config))


def write_recipe(config: TrainConfig, path: Path) -> None:
    """Write every setting of a run, defaults included."""
    text = require("yaml").safe_dump(to_values(config), sort_keys=False, allow_unicode=True)
    with atomic_path(path) as part:
        part.write_text(text, "utf-8")


def _parse(path: Path) -> dict[str, Any]:
    yaml = require("yaml")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ValueError(f"recipe {path} {reason}. The recipes that come along are in recipes/.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a YAML file ({reason}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} has no settings; expected sections such as model, data and engine.")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    """Set "a.b=value" in nested values; the value is YAML."""
    yaml = require("yaml")
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f'"{override}" is not an override; write key=value, such as engine.steps=2000.')
    *sections, name = key.strip().split(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f'the value of "{override}" is not YAML; quote it.') from error
    for section in sections:
        inner = values.get(section)
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise ValueError(f'"{override}": {section} is a value, not a section.')
        values = inner
    values[name] = value


def _problem(error: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return f'"{where}" is not a setting{_nearest(where)}'
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where} is {error['input']!r}: {message[:1].lower()}{message[1:].rstrip('.')}"


def _nearest(key: str) -> str:
    """The hint that ends the message of an unknown key: the nearest of its section, or of all, or the section's."""
    known = list(_keys(TrainConfig))
    section, _, name = key.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == section]
    for candidates, cutoff in ((siblings, 0.6), (known, 0.8)):
        by_name = {other.rpartition(".")[2]: other for other in reversed(candidates)}
        for match in difflib.get_close_matches(name, by_name, 1, cutoff):
            return f'; the nearest is "{by_name[match]}"'
    return f"; there are {', '.join(siblings)}" if siblings else ""


def _keys(cls: type, prefix: str = "") -> Iterable[str]:
    """All dotted keys of a section and the sections in it."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield prefix + field.name
        for inner in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(inner):
                yield from _keys(typing.cast(type, inner), f"{prefix}{field.name}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
