"""A small extractor of the tests, known to torch-fidelity."""

import numpy as np
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from pixeldit_core.evaluation.extractor import load_extractor

NAME = "channels"


class Channels(torch_fidelity.FeatureExtractorBase):
    """Mean and standard deviation of each channel, float64 [B, 6]; logits of three classes: the means, scaled."""

    def __init__(self, name, features_list, **options):
        super().__init__(name, features_list)

    def forward(self, images):
        pixels = images.double().flatten(2)
        found = {"moments": torch.cat([pixels.mean(2), pixels.std(2)], 1), "logits": pixels.mean(2) / 20}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list():
        return "moments", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "moments"


if NAME not in FEATURE_EXTRACTORS_REGISTRY:
    torch_fidelity.register_feature_extractor(NAME, Channels)


def channels():
    """The extractor as the command takes it."""
    return load_extractor(NAME, None, torch.device("cpu"))


def draw(count, seed, size=8, shift=0):
    """Noise images of differing brightness, uint8 [N, H, W, 3]."""
    rng = np.random.default_rng(seed)
    base = rng.normal(110 + shift, 25, (count, 1, 1, 3)) + rng.normal(0, 12, (count, size, size, 3))
    return base.clip(0, 255).astype(np.uint8)


def write(images, folder, names=None):
    """PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(images):
        path = folder / (names[index] if names else f"{index:04d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder
