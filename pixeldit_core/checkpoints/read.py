"""From a file to tensors, without ever running code that a file brings along."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# Dictionaries of tensors inside of a pickled file. The first is what everybody means by a checkpoint and gives its
# keys as they are; the others keep their name as a prefix. Whatever else lies in the file is not about weights.
CONTAINERS = (
    "state_dict",
    "state_dict_ema",
    "model",
    "ema",
    "model_ema",
    "model_state_dict",
    "ema_model_state_dict",
)

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file under the names it has for them (memory-mapped where the format allows), and its metadata.

    The format is told by content, not by the file's name. Pickled files are read by torch's weights-only reader:
    data and tensors, no code.

    Raises:
        ValueError: missing, empty, truncated or not a checkpoint; a pickled file that wants more than data.
    """
    path = Path(path)
    if _is_pickled(path):
        return _read_pickled(path)
    with _open_safetensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})


def read_shapes(
    path: str | Path,
) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype], dict[str, str]]:
    """Shapes, dtypes and metadata alone: reads no tensor data.

    Raises:
        ValueError: as `read_checkpoint`.
    """
    path = Path(path)
    if _is_pickled(path):
        tensors, metadata = _read_pickled(path)  # memory-mapped: the data stays on the disk
        return (
            {k: tuple(v.shape) for k, v in tensors.items()},
            {k: v.dtype for k, v in tensors.items()},
            metadata,
        )
    shapes, dtypes = {}, {}
    with _open_safetensors(path) as file:
        for key in file.keys():
            part = file.get_slice(key)
            shapes[key] = tuple(part.get_shape())
            dtypes[key] = _DTYPES.get(part.get_dtype(), torch.uint8)
        return shapes, dtypes, dict(file.metadata() or {})


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _is_pickled(path: Path) -> bool:
    """Whether torch's own reader is the one for this file; refuses at once what no reader can read."""
    if path.is_dir():
        raise ValueError(f"{path.name} is a folder. Choose the .safetensors file inside of it.")
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no such file ({path.parent}).")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path.name} is empty. The download probably stopped: get the file again.")
    if head[8:9] == b"{":  # before the others: the length in front of it may look like a pickle's first byte
        return False
    if head.startswith((_ZIP, _PICKLE)):
        return True
    if head.startswith(b"GGUF"):
        raise ValueError(f"{path.name} is a GGUF file, which is not read here. Get the weights as .safetensors.")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path.name} is a Git LFS pointer, not the file itself. Download the file, or run git lfs pull."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path.name} is a web page, not a checkpoint. The download went wrong: get the file again.")
    raise ValueError(
        f"{path.name} is not a checkpoint: neither .safetensors nor a torch file (it starts with {head[:12]!r}). "
        "Get the file again, or choose another."
    )


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path.name} is a damaged or truncated .safetensors file ({error}). Get the file again."
        ) from error


def _read_pickled(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # torch takes a path that ends so for safetensors, whatever is inside; a file that it cannot map goes by handle
    by_path = path.suffix != ".safetensors" and zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), path.open("rb") as file:
            stored = torch.load(path if by_path else file, map_location="cpu", weights_only=True, mmap=by_path)
    except pickle.UnpicklingError as error:
        raise ValueError(_explain(path, error)) from error
    except Exception as error:  # damaged bytes make torch's reader raise nearly anything
        raise ValueError(f"{path.name} is damaged or truncated ({_first_line(error)}). Get the file again.") from error
    if not isinstance(stored, Mapping):
        raise ValueError(f"{path.name} holds a {type(stored).__name__}, not a dictionary of tensors.")
    return _flatten(stored), _plain_values(stored)


def _numpy_state() -> list[Any]:
    """What a numpy random state, saved by a trainer beside its weights, is made of: arrays of plain numbers."""
    reconstruct = np._core.multiarray._reconstruct if hasattr(np, "_core") else np.core.multiarray._reconstruct
    names = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    return [np.ndarray, np.dtype, type(np.dtype(np.uint32)), *((reconstruct, name) for name in names)]


_ALLOWED = _numpy_state()


def _flatten(stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by name. Known containers are opened; without any, the dictionary itself is the state dict."""
    found = {name: stored[name] for name in CONTAINERS if isinstance(stored.get(name), Mapping)}
    if not found:
        return dict(_leaves(stored, ""))
    tensors: dict[str, Tensor] = {}
    for name, content in found.items():
        tensors.update(_leaves(content, "" if name == "state_dict" else f"{name}."))
    return tensors


def _leaves(content: Mapping[str, Any], prefix: str) -> Any:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")


def _plain_values(stored: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in stored.items() if isinstance(value, str | int | float)}


def _explain(path: Path, error: Exception) -> str:
    """Which class a refused pickle wanted, from torch's message."""
    text = str(error)
    for mark in ("Unsupported global: GLOBAL ", "Trying to load unsupported GLOBAL ", "Unsupported class "):
        if mark in text:
            wanted = text.split(mark, 1)[1].split()[0].rstrip(".")
            return (
                f'{path.name} is a pickled file that wants to load "{wanted}". That could run code, so it is refused; '
                "nothing of it was run. Get the weights as .safetensors, or convert them where the file was written."
            )
    return (
        f"{path.name} is not a readable torch file ({_first_line(error)}). Nothing of it was run. "
        "If it should be a checkpoint, get it again, best as .safetensors."
    )


def _first_line(error: Exception) -> str:
    """What torch found, without its advice to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if "weights_only" not in line]
    return (lines or [type(error).__name__])[0][:200]
