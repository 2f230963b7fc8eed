"""Feature extractors by name, all through torch-fidelity's interface, with weights from a file that the user names."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.save import hashes
from ..extras import require

INCEPTION = "inception"
CLASSIFIER = "classifier"
_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_PICKLED = (INCEPTION, "inception-v3-compat", "vgg16")  # weights that torch-fidelity unpickles
_REFUSED = {"clip-": "unpacks its weights as TorchScript, which is code", "dinov2-": "only downloads its weights"}


@dataclass(frozen=True)
class Extractor:
    """A network from images to features, and which of its layers each metric takes."""

    name: str
    module: Any
    weights: dict[str, str]  # SHA-256 of the file, by its name; empty = none was given
    fid: str
    spatial: str | None
    logits: str | None
    layers: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Of a classifier."""
        return getattr(self.module, "class_names", None)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 [B, 3, H, W] -> features [B, D] by layer, float32.

        Convolutions stay in float32: by default torch computes them in TF32 on some GPUs.
        """
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            return dict(zip(self.layers, self.module(images), strict=True))


def load_extractor(name: str, weights: Path | None, device: torch.device) -> Extractor:
    """An extractor that torch-fidelity knows, or that was registered there.

    Args:
        name: "inception" (the ADM protocol's), "classifier" (toy_data/classifier.py), "vgg16", or a registered one.
        weights: its file; nothing is downloaded.

    Raises:
        ImportError: torch-fidelity is not installed.
        ValueError: unknown, without its weights, or a file that is not what it needs.
    """
    fidelity = require("torch_fidelity")
    registry = require("torch_fidelity.registry").FEATURE_EXTRACTORS_REGISTRY
    _register_own(fidelity, registry)
    for start, reason in _REFUSED.items():
        if name.startswith(start) and name in registry:
            raise ValueError(f'extractor "{name}" {reason}. Choose {INCEPTION}, {CLASSIFIER} or vgg16.')
    if name not in registry:
        known = ", ".join(other for other in registry if not other.startswith(tuple(_REFUSED)))
        raise ValueError(f'extractor "{name}" is not known; there are {known}.')
    _check_weights(name, weights)
    kind = registry[name]
    layers = {metric: _default_layer(kind, metric) for metric in ("fid", "isc")}
    if layers["fid"] is None:
        raise ValueError(f'extractor "{name}" names no features for FID. Choose {INCEPTION}, {CLASSIFIER} or vgg16.')
    provided = kind.get_provided_features_list()
    spatial = "spatial" if "spatial" in provided else None
    wanted = tuple(dict.fromkeys(layer for layer in (layers["fid"], spatial, layers["isc"]) if layer))
    path = None if weights is None else str(weights)
    module = _build(kind, name, list(wanted), path, weights).eval().requires_grad_(False).to(device)
    digest = hashes(weights) if weights is not None else {}
    return Extractor(name, module, digest, layers["fid"], spatial, layers["isc"], wanted)


def _register_own(fidelity: Any, registry: dict[str, Any]) -> None:
    if INCEPTION not in registry:
        from .adm_inception import AdmInception

        fidelity.register_feature_extractor(INCEPTION, AdmInception)
    from .classifier_extractor import register_classifier

    register_classifier()


def _default_layer(kind: Any, metric: str) -> str | None:
    try:
        return kind.get_default_feature_layer_for_metric(metric)
    except (KeyError, NotImplementedError, ValueError):
        return None


def _check_weights(name: str, weights: Path | None) -> None:
    """Raises ValueError for missing weights, and for pickled ones that are more than tensors."""
    if weights is None:
        if name == CLASSIFIER:
            raise ValueError(
                "the classifier needs its weights: --extractor-weights FILE, which toy_data/classifier.py writes."
            )
        if name in _PICKLED:
            source = f"Get {_URL} once (90 MB)" if name != "vgg16" else "Get torchvision's"
            raise ValueError(
                f'extractor "{name}" needs its weights, and nothing is downloaded here. {source}, and name the file '
                "with --extractor-weights."
            )
        return
    if not weights.is_file():
        raise ValueError(f"{weights} is not there; --extractor-weights names the file with the extractor's weights.")
    if name in _PICKLED:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged files
            raise ValueError(_not_weights(weights, name, error)) from error
        if type(state) not in (dict, OrderedDict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
        ):
            raise ValueError(_not_weights(weights, name, "it does not hold tensors by name"))


def _build(kind: Any, name: str, layers: list[str], path: str | None, weights: Path | None) -> Any:
    try:
        return kind(name, layers, feature_extractor_weights_path=path)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        if weights is None:  # an error of the extractor itself
            raise
        raise ValueError(_not_weights(weights, name, error)) from error


def _not_weights(weights: Path, name: str, reason: object) -> str:
    text = " ".join(str(reason).split())[:200]
    return f'{weights} has no weights of the extractor "{name}" ({text}). For {INCEPTION}, get {_URL}.'
