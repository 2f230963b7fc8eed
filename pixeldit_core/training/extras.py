"""Packages that only training needs."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ImportError: it is missing; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        package = {"yaml": "pyyaml"}.get(name.partition(".")[0], name.partition(".")[0])
        raise ImportError(
            f"training needs the package {package}, which is not installed. Install the packages for training with "
            f'pip install -e ".[train]" in the folder of ComfyUI-PixelDiT, or pip install {package}.'
        ) from error
