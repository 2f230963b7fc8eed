"""The classifier as a feature extractor of torch-fidelity: FID and the others in the features of the toy data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from .classifier import load_classifier

NAME = "classifier"


class ClassifierExtractor(FeatureExtractorBase):
    """Features [B, 128] and logits [B, K], float32, of uint8 images [B, 3, H, W].

    A classifier of gray images takes one channel of them: torch-fidelity reads every image as RGB.

    Args:
        name, features_list: as torch-fidelity gives them: "features", "logits" or both.
        feature_extractor_weights_path: a file of `save_classifier`.

    Raises:
        ValueError: no file, or one that `load_classifier` refuses; features that it does not have.
    """

    class_names: tuple[str, ...]

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(
                f'the feature extractor "{name}" needs its weights: name the file that toy_data/classifier.py has '
                "written, with --extractor-weights FILE."
            )
        self.file = Path(feature_extractor_weights_path).name
        self.classifier, self.class_names = load_classifier(feature_extractor_weights_path)
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The features that it has."""
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Logits for the Inception Score ("isc"), features for "fid", "kid" and "prc"."""
        return {"isc": "logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """No: it takes less time than to compile it would."""
        return False

    @torch.no_grad()
    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """The requested features of uint8 images [B, 3, H, W], in the order of the request.

        Raises:
            ValueError: images of another size than it was trained at; colors, where it was trained on gray images.
        """
        assert input.dtype == torch.uint8 and input.ndim == 4 and input.shape[1] == 3, (input.dtype, input.shape)
        features = self.classifier.features(self._own_channels(input))
        found = {"features": features, "logits": self.classifier.logits(features)}
        return tuple(found[name] for name in self.features_list)

    def _own_channels(self, images: Tensor) -> Tensor:
        """Images of the trained size with the classifier's number of channels."""
        (height, width), (own_height, own_width) = images.shape[2:], self.classifier.image_size
        if (height, width) != (own_height, own_width):
            raise ValueError(
                f"the images are {height} x {width} (height x width), and {self.file} was trained at {own_height} x "
                f"{own_width}. Give it images of that size, or train a classifier at theirs."
            )
        if self.classifier.in_channels == 3:
            return images
        gray = images[:, :1]
        if not torch.equal(images, gray.expand_as(images)):
            raise ValueError(
                f"the images have colors, and {self.file} was trained on gray ones. Give it gray images, or train a "
                "classifier on such as these."
            )
        return gray


def register_classifier() -> str:
    """Make it known to torch-fidelity, once however often it is called, and return the name to ask for it by."""
    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(NAME, ClassifierExtractor)
    return NAME
