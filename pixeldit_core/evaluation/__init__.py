"""Evaluation: the images of a checkpoint, and their score against a reference (docs/evaluation.md).

Sampling and training never import it. The names below are its public ones; each module is imported when a name of it is
used, so that packages of the extra `eval` are needed only for what they do.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "archive": ("write_archive",),
    "class_accuracy": ("accuracy", "confusion_matrix", "match_labels", "report"),
    "classifier": ("Classifier", "load_classifier", "save_classifier", "train_classifier"),
    "classifier_extractor": ("ClassifierExtractor", "register_classifier"),
    "generate": ("Job", "generate_images"),
    "image_folder": ("ImageFolder",),
    "plan": ("Plan",),
    "progress": ("Progress",),
    "writer": ("Writer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"pixeldit_core.evaluation has no {name}; it has {', '.join(sorted(_HOME))}.")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
