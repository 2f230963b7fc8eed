"""Class names for the label node."""

from __future__ import annotations

import functools
from typing import Any

from ...pixeldit_core import inspect_checkpoint
from ...pixeldit_core.labels import imagenet_names, numbered
from ...pixeldit_core.spec import ModelSpec
from .folders import BUNDLED
from .spec import find_spec


@functools.cache
def combo_options() -> list[str]:
    """The list before a model is connected: the bundled models' classes, then ImageNet's."""
    bundled = []
    for path in sorted(BUNDLED.glob("*.safetensors")):
        bundled += numbered(inspect_checkpoint(path).class_names or ())
    return [*bundled, *numbered(imagenet_names())]


def require_classes(model: Any) -> ModelSpec:
    """The spec of a class-conditional MODEL.

    Raises:
        ValueError: any other MODEL.
    """
    spec = find_spec(model)
    if spec is None or spec.family.condition != "class":
        kind = type(model.model).__name__ if spec is None else spec.family.title
        raise ValueError(
            f"this model ({kind}) has no classes. Connect a class-conditional checkpoint from PixelDiT Loader; "
            "a text-to-image model takes a prompt."
        )
    return spec
