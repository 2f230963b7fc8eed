"""The Inception network of the ADM evaluation suite, as torch-fidelity has it, with its spatial features.

torch-fidelity's network is the graph of 2015-12-05 with its weights, its own resize to 299 x 299 and its pooling
rules, in PyTorch. What it lacks for the protocol is sFID's layer: the first 7 channels of TensorFlow's `mixed_6/conv`,
17 x 17 x 7 = 2,023 numbers (arXiv 2103.03841, and openai/guided-diffusion, evaluations/evaluator.py).
"""

from __future__ import annotations

from typing import Any

import torch_fidelity
from torch import Tensor, nn

SPATIAL = "spatial"
_CHANNELS = 7


class AdmInception(torch_fidelity.FeatureExtractorInceptionV3):
    """FeatureExtractorInceptionV3 with the further feature "spatial" [B, 2023], in TensorFlow's order of axes."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list, **options)
        self.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._spatial = output[:, :_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """uint8 [B, 3, H, W] -> the requested features."""
        wanted = self.features_list
        self.features_list = [name for name in wanted if name != SPATIAL] or ["2048"]
        try:
            found = dict(zip(self.features_list, super().forward(input), strict=True))
        finally:
            self.features_list = wanted
        return tuple(self._spatial if name == SPATIAL else found[name] for name in wanted)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Those of torch-fidelity, and "spatial"."""
        return (*torch_fidelity.FeatureExtractorInceptionV3.get_provided_features_list(), SPATIAL)
