"""What the header of a file declares: shapes as a network has them, the networks in it, and its quantized weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families import Shapes
from .comfy_adaln import halves_of, join_shapes
from .descriptions import check_formats
from .layouts import is_ignored
from .quantized import companions, find_quantized, padded, real_shapes
from .refused_kinds import find_refused
from .weight_sets import Group


@dataclass(frozen=True)
class Header:
    """The tensors of a file without those that describe a quantization, and with ComfyUI's halves joined."""

    shapes: Shapes
    groups: Sequence[Group]
    quantized: Mapping[str, str]  # kind of each quantized weight, by the file's name for it

    def quantization(self, group: Group) -> str | None:
        """Kind of most of the quantized matrices: "fp8", "mxfp8" or "int8"; None = nothing is quantized."""
        kinds = Counter(kind for name, kind in self.quantized.items() if name.startswith(group.prefix))
        return kinds.most_common(1)[0][0] if kinds else None

    def fits(self, name: str, expected: tuple[int, ...]) -> bool:
        """Whether a tensor has this shape, apart from padding where it (or one of its halves) is mxfp8."""
        shape = self.shapes[name]
        if not any(self.quantized.get(key) == "mxfp8" for key in (name, *halves_of(name))):
            return shape == expected
        return len(shape) == len(expected) and all(a in (b, padded(b)) for a, b in zip(shape, expected, strict=True))


def parse_header(
    shapes: Shapes,
    dtypes: Mapping[str, torch.dtype],
    metadata: Mapping[str, str],
    groups: Sequence[Group],
    name: str,
    texts: Mapping[str, Tensor] | None = None,
) -> Header:
    """The header of a file from the shapes and dtypes of all its tensors.

    Args:
        groups: the networks in it; without any, nothing more is looked for.
        name: of the file, for messages.
        texts: as of `find_quantized`.

    Raises:
        ValueError: a network with more in it than ours have; weights of a format that is not supported, a scale that is
            missing or misshapen.
    """
    if not groups:
        return Header(shapes, groups, {})
    prefixes = tuple(group.prefix for group in groups)
    checked = {key: dtypes[key] for key in dtypes if key.startswith(prefixes) and not is_ignored(key)}
    try:
        check_formats(checked, texts or {}, metadata)  # what a file declares itself decides first
        kind = find_refused(checked, variants_only=True)
        quantized = {} if kind else find_quantized(checked, shapes, metadata, texts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if kind:
        raise ValueError(f"{name} is {kind.title}. {kind.advice}")
    # the scale of a weight that is not quantized stays, and is reported as unexpected
    described = companions(key for key in shapes if key in quantized or not key.endswith(".weight"))
    real = real_shapes(shapes, quantized)
    return Header(join_shapes({key: real[key] for key in real if key not in described}), groups, quantized)
