"""Weights that ComfyUI keeps packed (nvfp4, mxfp8, int8 ...): real shapes, and the numbers that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping

import comfy.ops
import torch
from torch import Tensor

_QUANT = ".comfy_quant"


def real_shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a network by name; of a packed weight, that of the matrix and not of what is stored."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    real = {key: tuple(value.shape) for key, value in network.named_parameters() if key in shapes}
    return shapes | real


def unpack(stored: Mapping[str, Tensor], network: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """Tensors of a network on the CPU, as for a file, with plain matrices in place of packed ones; float8 with one
    scale stays as it is.

    Args:
        prefix: of their names, before those of the network.
    """
    tensors = dict(stored)
    for key in [key for key, value in stored.items() if hasattr(value, "_qdata")]:
        tensors |= _stored_parts(key, stored[key])
    parameters = dict(network.named_parameters())
    for key in [key for key in tensors if key.endswith(_QUANT)]:
        layer = key.removesuffix(_QUANT)
        if str(json.loads(bytes(tensors[key].flatten().tolist()))["format"]).startswith("float8"):
            continue
        parts = {name: tensors.pop(name) for name in _parts(layer, tensors)}
        matrix = parameters[f"{layer}.weight".removeprefix(prefix)]
        weight = _dequantize({name.removeprefix(f"{layer}."): part for name, part in parts.items()}, matrix.shape)
        tensors[f"{layer}.weight"] = weight.to(matrix.dtype)
    return tensors


def _stored_parts(key: str, value: Tensor) -> dict[str, Tensor]:
    """A packed weight as ComfyUI's files have it. Older versions (0.4 to 0.8, and to 0.21 of what is away from the
    device) give it as such, the latter beside the scale that it had before it was patched.
    """
    return value.state_dict(key) if hasattr(value, "state_dict") else {key: value._qdata}


def _parts(layer: str, tensors: Mapping[str, Tensor]) -> list[str]:
    return [key for key in tensors if key.rpartition(".")[0] == layer and not key.endswith(".bias")]


def _dequantize(parts: dict[str, Tensor], shape: torch.Size) -> Tensor:
    """The matrix that a layer of ComfyUI's computes with."""
    operations = comfy.ops.mixed_precision_ops({}, torch.float32)
    layer = operations.Linear(shape[1], shape[0], bias=False, device="cpu")
    layer.load_state_dict(parts, strict=False)
    return layer.weight.dequantize()
