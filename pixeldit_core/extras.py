"""Packages of the extras: what only training and evaluation need."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_PACKAGES = {"yaml": "pyyaml", "torch_fidelity": "torch-fidelity"}
_EVALUATION = {"torch_fidelity", "matplotlib"}


def require(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ImportError: it is missing, or needs a torchvision that does not fit torch; the message says what to install.
    """
    top = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        package = _PACKAGES.get(top, top)
        extra, needs = ("eval", "evaluation") if top in _EVALUATION else ("train", "training")
        raise ImportError(
            f"{needs} needs the package {package}, which is not installed. Install the packages for {needs} with "
            f'pip install -e ".[{extra}]" in the folder of ComfyUI-PixelDiT, or pip install {package}.'
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ImportError(
            f"{name} imports torchvision, which was built for another torch than the installed {torch.__version__} "
            f"({error}). Install the torchvision that belongs to it, from where torch was installed."
        ) from error
