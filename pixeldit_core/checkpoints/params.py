"""The params of a network: from its shapes, a configuration, the file's metadata and the caller."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from ..families import Family, Shapes
from ..text import shorten_list
from .config import Config
from .json_values import convert_like, short_repr, short_text

log = logging.getLogger(__name__)


def params_from_shapes(family: Family, shapes: Shapes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Params that the shapes of a network determine, and weak defaults that they suggest.

    Raises:
        ValueError: shapes that no network of the family has.
    """
    try:
        return family.params_from(shapes), family.default_params(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        reason = f"tensor {error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{name}: this looks like {family.title}, but its sizes cannot be determined: {reason}. The file is "
            "incomplete or of another network: get it again, or choose another."
        ) from error


def without_unrelated(config: Config, from_shapes: Mapping[str, Any], name: str) -> Config:
    """The config beside a file, or an empty one where it describes another network."""
    if config.certain or not config.contradicts(from_shapes):
        return config
    log.info("%s: ignored %s beside it: it describes a different network.", name, config.source)
    return Config()


def merge_params(
    family: Family,
    from_shapes: Mapping[str, Any],
    defaults: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    name: str,
) -> Any:
    """Params of a family from all that declares some.

    Args:
        from_shapes: what the shapes determine; no source may contradict it.
        defaults: used where no source has a value; None = a source must have one.
        sources: name for messages -> values; later ones override earlier ones.
        name: of the file, for messages.

    Raises:
        ValueError: an unknown name, a value of a wrong type or one that contradicts the shapes, a value that is
            missing, values that no network can have.
    """
    fields = {field.name: field.default for field in dataclasses.fields(family.params)}
    values = {**defaults, **from_shapes}
    for source, declared in sources.items():
        for key, value in declared.items():
            if key not in fields:
                raise ValueError(
                    f'{name}: {source} has "{str(key)[:80]}", which is not a parameter of {family.title}. Correct or '
                    "remove it."
                )
            if key in from_shapes:
                _check_agreement(key, value, from_shapes[key], source, name)
                continue
            try:
                values[key] = convert_like(value, fields[key])
            except ValueError as error:
                raise ValueError(f"{name}: in {source} {key} is {error}. Correct it there.") from error
    if missing := [key for key in defaults if values[key] is None]:
        raise ValueError(
            f"{name}: {' and '.join(missing)} of this {family.title} cannot be determined from tensor shapes, and no "
            "configuration has them. Get the trainer's own file, or in Python pass "
            f"params={{{', '.join(f'{key!r}: ...' for key in missing)}}}."
        )
    try:
        return family.params(**values)
    except (ValueError, TypeError, OverflowError) as error:  # the values of a file may be of any type
        reason = _explain_values(family, {**defaults, **from_shapes}, sources, short_text(error), name)
        raise ValueError(reason) from error


def _explain_values(
    family: Family,
    values: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    error: str,
    name: str,
) -> str:
    """The message for params that no network can have: a source is to blame if they are right without its values."""
    title = family.title.split(",")[0]
    try:
        family.params(**values)
    except (ValueError, TypeError, OverflowError):
        return (
            f"{name}: its tensor shapes fit no {title}: {error} The file is damaged or of another network: get it "
            "again, or choose another."
        )
    said = shorten_list((source for source, declared in sources.items() if declared), 3)
    return f"{name}: no {title} can have the values of {said}: {error} Correct them."


def _check_agreement(key: str, value: Any, from_shapes: Any, source: str, name: str) -> None:
    if value is not None and value != from_shapes:
        raise ValueError(
            f"{name}: {source} says {key} = {short_repr(value)}, its tensors say {from_shapes!r}. They do not belong "
            "together: get both again, or move the wrong one away."
        )
