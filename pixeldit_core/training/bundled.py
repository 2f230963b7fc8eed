"""The two bundled models, as data: network, classes, sampling settings and how each was trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..families.pixeldit.params import PixelDiTParams
from ..families.xpred.params import XPredParams
from ..model import Model, build_model
from ..settings import SamplingSettings
from .trainer import TrainingSettings


@dataclass(frozen=True)
class BundledModel:
    """What decides a bundled model, together with its images (docs/bundled-models.md)."""

    family: str
    params: Any
    class_names: tuple[str, ...]
    settings: SamplingSettings
    training: TrainingSettings

    def build(self) -> Model:
        """The model on the CPU, its weights not initialized."""
        model = build_model(self.family, self.params, device="cpu")
        names = [(name,) for name in self.class_names]
        model.spec = replace(model.spec, class_names=names, settings=self.settings)
        return model


_DRAWINGS = (
    "hot-air balloon, sailboat, mountain, cactus, mushroom, fish, butterfly, house, sunflower, rocket, moon, umbrella"
)

BUNDLED = {
    "drawings": BundledModel(
        family="pixeldit",
        params=PixelDiTParams(
            hidden_size=192,
            num_groups=6,
            patch_depth=4,
            pixel_depth=1,
            patch_size=8,
            pixel_hidden_size=8,
            num_classes=12,
        ),  # 3.73 M parameters
        class_names=tuple(_DRAWINGS.split(", ")),
        settings=SamplingSettings(steps=20, cfg=3.0, size=(64, 64)),
        training=TrainingSettings(steps=3400, seed=20260),
    ),
    "digits": BundledModel(
        family="xpred_pixeldit",
        params=XPredParams(
            dim=96,
            depth=4,
            heads=3,
            dim_head=32,
            in_channels=1,
            image_size=28,
            qk_norm="rmsnorm",
            pixel_dim=16,
            pixel_depth=2,
            compress_ratio=4,
        ),  # 1.33 M parameters
        class_names=tuple("0123456789"),
        settings=SamplingSettings(steps=20, cfg=2.0, size=(28, 28)),
        training=TrainingSettings(steps=3200, time_mean=-0.4, flip=False, seed=28),
    ),
}
