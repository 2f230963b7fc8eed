"""PEFT's configuration of a LoRA: alpha and its scaling, which the tensors of its files do not have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .json_values import is_number, short_repr
from .layouts import PREFIXES
from .wrappers import WRAPPERS, unwrap

_CONFIG = "adapter_config.json"
_HEADER = "lora_adapter_metadata"  # where diffusers puts the same
_PREFIXES = ("", "base_model.", "unet.", *PREFIXES)  # a pipeline puts the model's name before a key: "transformer.r"
_PEFT_NAME = ".base_model."
_LONGEST_PATTERN = 200
_REPEATS, _NESTED = re.compile(r"[*+{?]"), re.compile(r"\)[*+{?]|\\\d|\(\?")


def read_peft_config(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The configuration in the header of a LoRA file, else that in the file beside it; empty for other writers.

    Ranks are not looked up: the matrices have them.

    Raises:
        ValueError: not a JSON object, or an alpha_pattern that is none.
    """
    beside = file.with_name(_CONFIG)
    if (text := metadata.get(_HEADER)) is not None:
        origin = f"{file.name}: its {_HEADER}"
    elif is_of_peft(file, tensors) and beside.is_file():
        text, origin = beside.read_bytes(), f"{beside.name} beside {file.name}"
    else:
        return {}
    try:
        stored = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not JSON ({error}). Get the LoRA again.") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{origin} is not a JSON object. Get the LoRA again.")
    parts = ((key.rpartition("."), value) for key, value in stored.items())
    config = {name: value for (prefix, dot, name), value in parts if prefix + dot in _PREFIXES}
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise ValueError(f"{origin} has an alpha_pattern that is not a JSON object. Get the LoRA again.")
    return config


def is_of_peft(file: Path, tensors: Iterable[str]) -> bool:
    """Whether a file is one of PEFT's own, so that `adapter_config.json` is about it."""
    return file.stem == "adapter_model" or any(_PEFT_NAME in f".{key}" for key in tensors)


def has_alpha(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has an alpha at all."""
    return any(config.get(name) is not None for name in ("lora_alpha", "alpha", "alpha_pattern"))


def read_alpha(
    stored: Tensor | None, config: Mapping[str, Any], rank: int, module: str, weight: str, source: str
) -> float | None:
    """Alpha of a module, where scale = alpha / rank: the file's own tensor, else the configuration's; None = rank.

    Args:
        stored: the module's tensor `alpha`.
        config: PEFT's; empty for a module of another writer, whom it is not about.
        module, weight, source: as for `find_alpha`.

    Raises:
        ValueError: no finite number.
    """
    if stored is None:
        alpha = find_alpha(config, module, weight, source)
        factor = math.sqrt(rank) if config.get("use_rslora") else 1.0  # alpha / sqrt(r), written as alpha / r
    else:
        alpha, factor = (stored.item() if stored.numel() == 1 else list(stored.shape)), 1.0
    if alpha is None:
        return None
    if not is_number(alpha):
        raise ValueError(
            f"{source}: alpha of {module} is {short_repr(alpha)}, expected a finite number below 2**31. The file is "
            "damaged: get it again."
        )
    return factor * float(alpha)


def find_alpha(config: Mapping[str, Any], module: str, weight: str, source: str) -> Any:
    """Alpha of a module, as it stands in the configuration: of the first pattern that matches, else the general one.

    Args:
        module: as the file calls it.
        weight: canonical name of the module's weight. A pattern matches either name, or a dotted end of it.
        source: file name, for messages.

    Raises:
        ValueError: a pattern that is no regular expression, or one that could take very long to match.
    """
    paths = (unwrap(module).removeprefix("base_model.model."), weight.removesuffix(".weight"))
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        # names and a wildcard or two; more could be made to backtrack for ever
        if len(pattern) > _LONGEST_PATTERN or len(_REPEATS.findall(pattern)) > 3 or _NESTED.search(pattern):
            raise ValueError(
                f"{source}: alpha_pattern {pattern[:80]!r} is too complex: at most {_LONGEST_PATTERN} characters and "
                "three repetitions, none nested, are supported. Get the LoRA again, or simplify its patterns."
            )
        try:
            if any(re.fullmatch(rf"(?:.*\.)?(?:{_unwrap_pattern(pattern)})", path) for path in paths):
                return alpha
        except re.error as error:
            raise ValueError(
                f"{source}: alpha_pattern {pattern!r} is not a valid regular expression ({error}). Get the LoRA again."
            ) from error
    return config.get("lora_alpha")


def _unwrap_pattern(pattern: str) -> str:
    """A pattern for names without the pieces of wrappers, which training may have put into it."""
    for piece in WRAPPERS:
        if piece in pattern:
            pattern = re.sub(rf"{piece}\\?\.|\\?\.{piece}$", "", pattern)
    return pattern
