"""What is known of a model besides its weights; carried whole by every record that needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .families import Family
from .families.record import Params
from .labels import Names, imagenet_names
from .settings import SamplingSettings
from .sizes import Size

About = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ModelSpec:
    """Family, sizes and origin of a model; sizes of images are (height, width)."""

    family: Family
    params: Any  #                            of the family: at least a `Params`
    class_names: Names | None = None
    settings: SamplingSettings | None = None  # the checkpoint's own
    source: str = ""  #                       file name, for messages
    weights: str = ""  #                      of the file: "ema" or "raw"
    about: About = ()  #                      what the file says of itself, such as ("license", "MIT")

    @property
    def trained_sizes(self) -> tuple[Size, ...]:
        """Those of the checkpoint's own settings, else of the family."""
        if self.settings and self.settings.size:
            return (self.settings.size,)
        return self.family.trained_sizes(self.params)

    def settings_for(self, size: Size | None = None) -> SamplingSettings:
        """The checkpoint's own settings, else the family's for this size."""
        return self.settings or self.family.default_settings(self.params, size)

    @property
    def default_size(self) -> Size:
        """Default output size."""
        size = self.settings_for(None).size or self.family.default_settings(self.params, None).size
        assert size is not None, f"{self.family.name} has no default size"
        return size


def default_class_names(family: Family, params: Params) -> Names | None:
    """ImageNet's names for a network of 1,000 classes; others have those of their file, or none."""
    if family.condition == "class" and getattr(params, "num_classes", 0) == len(imagenet_names()):
        return imagenet_names()
    return None
