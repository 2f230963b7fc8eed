"""The frozen encoder among the tensors of a checkpoint: found, given names of the network, put in, taken out.

A PixelDiT2 looks at its own input through it. It is a module of the network like any other, but published files do not
have it, and it is never quantized (spec: pixeldit2, 2.3 and 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..families import Shapes
from .encoder_file import PLACE, Encoder
from .encoder_names import REGISTERS, parse_names, under_timm_names, zero_biases
from .weight_sets import Group

PROJECTION = "dino_conditioner.dino_proj.input_proj.weight"  # [width of the network, of the encoder]


def is_of_encoder(key: str) -> bool:
    """Whether a tensor, by the network's or a file's name, is one of an encoder inside of a network."""
    return f".{PLACE}" in f".{key}"


def needed_width(shapes: Shapes, group: Group) -> int | None:
    """Width of the encoder that a network looks through; None = it has no place for one."""
    shape = shapes.get(group.prefix + PROJECTION, ())
    return shape[1] if len(shape) == 2 else None


def has_encoder(keys: Iterable[str], group: Group) -> bool:
    """Whether an encoder is inside of this network in a file."""
    return any(key.startswith(group.prefix + PLACE) for key in keys)


def with_plain_names(tensors: Mapping[str, Tensor], groups: Iterable[Group], name: str) -> dict[str, Tensor]:
    """Tensors of a file where each encoder inside has the network's names, and no bias is left out.

    An encoder is frozen, so that a set of weights without it takes that of another set in the same file.

    Args:
        tensors: on any device.
        name: of the file, for messages.

    Raises:
        ValueError: an encoder under the names of transformers or Meta that is not complete.
    """
    result = dict(tensors)
    places = {group.prefix + PLACE: group for group in groups if group.prefix + PROJECTION in tensors}
    for place in places:
        inside = {key: value for key, value in tensors.items() if key.startswith(place)}
        if not inside:
            continue
        if any(place + marker in inside for marker in REGISTERS[1:]):
            shapes = {key: tuple(value.shape) for key, value in inside.items()}
            timm = under_timm_names(inside, parse_names(shapes, place, f"{name}: the encoder in it"))
            result = {key: value for key, value in result.items() if key not in inside}
            result |= {place + key: value for key, value in timm.items()}
        else:
            result |= zero_biases(inside, place)
    whole = next((place for place in places if place + "norm.weight" in result), None)
    if whole is not None:
        shared = {key[len(whole) :]: value for key, value in result.items() if key.startswith(whole)}
        for place in places:
            if not any(key.startswith(place) for key in tensors):
                result |= {place + key: value for key, value in shared.items()}
    return result


def without_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file without any encoder inside."""
    return {key: value for key, value in tensors.items() if not is_of_encoder(key)}


def with_encoder(tensors: Mapping[str, Tensor], group: Group, encoder: Encoder) -> dict[str, Tensor]:
    """Tensors of a file with this encoder inside of one network, in place of another."""
    place = group.prefix + PLACE
    return without_encoder(tensors) | {place + key: value for key, value in encoder.tensors.items()}
