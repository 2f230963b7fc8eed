"""Evaluation: the images of a checkpoint, and their score against a reference (docs/evaluation.md).

Sampling and training never import it. The names below are its public ones; each module is imported when a name of it is
used, so that packages of the extra `eval` are needed only for what they do.
"""

from __future__ import annotations

from ..lazy import lazy_names

_MODULES = {
    "archive": ("write_archive",),
    "class_accuracy": ("accuracy", "confusion_matrix", "match_labels", "report"),
    "classifier": ("Classifier", "load_classifier", "save_classifier", "train_classifier"),
    "classifier_extractor": ("ClassifierExtractor", "register_classifier"),
    "conditions": ("class_conditions", "prompt_conditions"),
    "extractor": ("Extractor", "load_extractor"),
    "generate": ("Job", "generate_images"),
    "image_folder": ("ImageFolder",),
    "image_source": ("open_images",),
    "measure": ("Measured", "measure_images"),
    "metrics": ("Scores", "compute_scores"),
    "plan": ("Plan",),
    "progress": ("Progress",),
    "reference": ("Reference", "open_reference", "save_reference"),
    "score": ("score_samples",),
    "writer": ("Writer",),
}
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
