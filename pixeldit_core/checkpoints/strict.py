"""Strict validation of a file against its network: nothing missing, nothing misshapen, nothing unexpected."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from ..text import shorten_list
from .header import Header
from .layouts import canonical, find_stored, is_counter, is_ignored, is_loss
from .weight_sets import Group, incomplete_averages

log = logging.getLogger(__name__)

_SHOWN = 5  # names in a message


def check_strict(header: Header, group: Group, stored: Mapping[str, str], network: nn.Module, name: str) -> None:
    """Compare the tensors of a file with those of the network to load.

    Args:
        stored: the file's names of the network's tensors, by canonical name.
        network: on any device.
        name: of the file, for messages.

    Raises:
        ValueError: tensors that are missing, misshapen or unexpected. What is on the ignore list, and the other
            networks in the file, are expected.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in expected if key not in stored]
    if missing and (reason := explain_incomplete(header, group, stored, name)):
        raise ValueError(reason)
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(expected)} tensors are missing: {shorten_list(missing, _SHOWN)}. "
            "The file is incomplete: get it again."
        )
    prefixes = [entry.prefix for entry in header.groups]
    others = tuple(entry.prefix for entry in header.groups if entry.prefix not in ("", group.prefix))
    bare = [entry for entry in header.groups if not entry.prefix]
    wrong, extra = [], []
    for key, shape in header.shapes.items():
        inner = canonical(key[len(group.prefix) :], group.family) if key.startswith(group.prefix) else ""
        if inner in expected:
            if not header.fits(key, expected[inner]):
                wrong.append(f"{inner} is {list(shape)}, expected {list(expected[inner])}")
        elif not (
            key.startswith(others)
            or any(canonical(key, entry.family) in expected for entry in bare)
            or is_ignored(key)
            or is_ignored(key.removeprefix(group.prefix))
            or is_counter(key, shape, prefixes)
            or (group.prefix and is_loss(key, group.prefix))
        ):
            extra.append(key)
    extra = _without_incomplete(header, group, extra, expected, name)
    if wrong:
        raise ValueError(
            f"{name}: {len(wrong)} of {len(expected)} tensors have a shape that does not fit: "
            f"{shorten_list(wrong, _SHOWN, '; ')}. The file is damaged or of another network: get it again, or choose "
            "another."
        )
    if extra:
        raise ValueError(
            f"{name}: {len(extra)} tensors do not belong to {group.family.title}: {shorten_list(extra, _SHOWN)}. "
            "It may be another variant of the network, which would generate wrong images. Choose another file."
        )


def explain_incomplete(header: Header, group: Group, stored: Mapping[str, str], name: str) -> str | None:
    """Why an average cannot be loaded whose raw weights, in the same file, have tensors that it has not."""
    for other in header.groups:
        if not group.ema or other.role != "raw" or other.family is not group.family:
            continue
        whole = find_stored(header.shapes, other)
        if missing := [key for key in whole if key not in stored]:
            return (
                f"{name}: the average in it ({group.name}) has not all tensors of the network; {len(missing)} that the "
                f"raw weights ({other.name}) have are missing: {shorten_list(missing, _SHOWN)}. The trainer did not "
                "average them. Choose the raw weights of this file (raw)."
            )
    return None


def _without_incomplete(
    header: Header, group: Group, extra: list[str], expected: Mapping[str, tuple[int, ...]], name: str
) -> list[str]:
    """Unexpected tensors but for those of an incomplete average, which have the network's names and shapes.

    They are not loaded, and the log says so.
    """
    places = incomplete_averages(header.groups, header.shapes) if len(extra) > 1 else {}
    for place in places:
        part = {key: canonical(key.removeprefix(place), group.family) for key in extra if key.startswith(place)}
        if all(inner in expected and header.fits(key, expected[inner]) for key, inner in part.items()):
            log.warning("%s: only a part of an average is in it (%s): not read.", name, place)
            extra = [key for key in extra if key not in part]
    return extra
