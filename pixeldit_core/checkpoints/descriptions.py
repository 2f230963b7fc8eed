"""What a file declares of its quantization: the format of a layer, in `X.comfy_quant` or in the header."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..dtypes import dtype_name

METADATA = "_quantization_metadata"
FORMATS = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "mxfp8": "mxfp8", "int8_tensorwise": "int8"}
ADVICE = "Get the bf16 file and choose fp8_e4m3fn in the loader."
FORMAT = ".comfy_quant"  # ending of the tensor that says the format of a layer
_LARGEST_JSON = 1 << 16


def check_formats(names: Iterable[str], texts: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Refuse the formats that are not supported, before anything else is judged.

    The tensors of such a format have names, dtypes and shapes of its own, which would look like another fault.

    Args:
        names: of the tensors that matter.
        texts: the file's tensors, of which only the small ones with descriptions are read.

    Raises:
        ValueError: such a format, or a description that is not readable.
    """
    layers = layers_in(metadata)
    for name in names:
        layer, _, part = name.rpartition(".")
        if f".{part}" == FORMAT and name in texts and texts[name].dtype == torch.uint8:
            kind_of(f"{layer}.weight", declared_by(layer, texts, metadata) or {})
        elif layer in layers and layer + FORMAT not in texts:  # a tensor overrides the header
            kind_of(f"{layer}.weight", layers[layer])


def kind_of(name: str, declared: Mapping[str, Any]) -> str:
    """The kind of a weight by its description: "fp8", "mxfp8" or "int8".

    Raises:
        ValueError: a format that is not supported.
    """
    form = declared.get("format")
    if not isinstance(form, str) or form not in FORMATS:
        raise ValueError(
            f"{name} has the format {short(form)}, which is not supported; {', '.join(FORMATS)} are. {ADVICE}"
        )
    return FORMATS[form]


def declared_by(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The file's description of a layer: in a tensor beside it, or else in the header; None = it has none.

    Args:
        name: of the layer or its weight.

    Raises:
        ValueError: it is not readable.
    """
    key = layer_of(name) + FORMAT
    if key not in tensors:
        return layers_in(metadata).get(layer_of(name))
    if tensors[key].dtype != torch.uint8 or tensors[key].numel() > _LARGEST_JSON:
        stored = f"{dtype_name(tensors[key].dtype)} {list(tensors[key].shape)}"
        raise damaged(key, f"is {stored}, expected at most {_LARGEST_JSON:,} bytes of JSON")
    return _parse(bytes(tensors[key].flatten().tolist()), key)


def layers_in(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The header's descriptions by layer.

    Raises:
        ValueError: the entry is there and not readable.
    """
    return _layers(metadata.get(METADATA))


def layer_of(name: str) -> str:
    """The layer of a weight."""
    return name.removesuffix(".weight")


def damaged(name: str, what: str) -> ValueError:
    """The error for a tensor whose quantization is not readable."""
    return ValueError(f"{name} {what}. The file is damaged or another kind: get it again, or get the bf16 file.")


def short(value: Any) -> str:
    """A value of a description, for a message."""
    return repr(value)[:40] if isinstance(value, str | int | float) else f"of type {type(value).__name__}"


@lru_cache(maxsize=1)  # asked for each weight of a file
def _layers(text: str | None) -> dict[str, dict[str, Any]]:
    layers = _parse(text, METADATA).get("layers", {}) if text else {}
    if not isinstance(layers, dict) or not all(isinstance(entry, dict) for entry in layers.values()):
        raise damaged(METADATA, "has no dictionary of layers")
    return layers


def _parse(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"is not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise damaged(name, f"is {text[:40]!r}, expected a dictionary in JSON")
    return values
