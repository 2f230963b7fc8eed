"""Sampling settings, as data, and the published ones by name (paper, tables of results; spec: published-files)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

MAX_STEPS, MAX_SIDE = 10_000, 2**14  # in a file: ComfyUI's own limits


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample a checkpoint.

    Raises:
        ValueError: a value that no sampling can have.
    """

    steps: int
    cfg: float  #                                     guidance scale, 1 = none
    timeshift: float = 1.0  #                         above 1: more steps near the noise
    cfg_interval: tuple[float, float] = (0.0, 1.0)  # of t: 0 = noise, 1 = image
    solver: str = "ab2"
    size: tuple[int, int] | None = None  #            height, width

    def __post_init__(self) -> None:
        low, high = self.cfg_interval
        if self.steps < 1 or not 0 < self.timeshift < math.inf or not 0 <= low < high <= 1:
            raise ValueError(f"{self} needs steps >= 1, timeshift > 0 and 0 <= start < end <= 1.")
        if not math.isfinite(self.cfg):
            raise ValueError(f"{self} needs a finite cfg.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SamplingSettings:
        """The inverse of `to_dict`; values come from a file and are validated.

        Raises:
            ValueError: an unknown or missing field, a value of the wrong kind, steps or a size beyond ComfyUI's limits.
        """
        try:
            size = values.get("size")
            start, end = values.get("cfg_interval", (0.0, 1.0))
            settings = cls(
                steps=int(values["steps"]),
                cfg=float(values["cfg"]),
                timeshift=float(values.get("timeshift", 1.0)),
                cfg_interval=(float(start), float(end)),
                solver=str(values.get("solver", "ab2")),
                size=None if size is None else (int(size[0]), int(size[1])),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"sampling settings {values!r} are not readable: {error!r}") from error
        if settings.steps > MAX_STEPS or not all(1 <= side <= MAX_SIDE for side in settings.size or ()):
            raise ValueError(f"{settings} needs at most {MAX_STEPS} steps, and sides of 1 to {MAX_SIDE}.")
        return settings


SETTINGS: dict[str, SamplingSettings] = {
    "imagenet256-epoch80": SamplingSettings(100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),  #   gFID 2.36
    "imagenet256-epoch160": SamplingSettings(100, 3.25, 1.0, (0.1, 1.0), "ab2", (256, 256)),  #  gFID 1.97
    "imagenet256-epoch320": SamplingSettings(100, 2.75, 1.0, (0.1, 0.9), "ab2", (256, 256)),  #  gFID 1.61
    "imagenet512": SamplingSettings(100, 3.5, 2.0, (0.1, 1.0), "ab2", (512, 512)),  #            gFID 1.78
    "t2i-1024": SamplingSettings(50, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
    "t2i-1024-fast": SamplingSettings(25, 2.75, 4.0, (0.0, 1.0), "flow_dpmpp_2m", (1024, 1024)),
    "t2i-512": SamplingSettings(50, 2.75, 3.0, (0.0, 1.0), "flow_dpmpp_2m", (512, 512)),
    "xpred": SamplingSettings(100, 3.0, 1.0, (0.1, 1.0), "euler"),  #  at the size each network was trained on
    "pixeldit2-256": SamplingSettings(50, 2.4, 1.0, (0.125, 0.9), "heun_exact", (256, 256)),  #  FID 1.46
    "pixeldit2-512": SamplingSettings(50, 2.1, 1.0, (0.1, 0.925), "heun_exact", (512, 512)),  #  FID 1.48
    "pixelhdm": SamplingSettings(50, 7.5, 1.0, (0.0, 1.0), "heun_exact", (512, 512)),
}

# of the published text-to-image results
NEGATIVE_PROMPT = "low quality, worst quality, over-saturated, blurry, deformed, watermark"
