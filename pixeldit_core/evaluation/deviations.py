"""In what a score differs from the protocol of the published ones, in words.

The protocol (ADM, arXiv 2105.05233; openai/guided-diffusion, evaluations): 50,000 samples of 256 x 256 or 512 x 512, 50
of each class of ImageNet; features of the TensorFlow Inception network of 2015-12-05; stored statistics of the training
images as reference, and 10,000 of them for precision and recall.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .extractor import INCEPTION, Extractor
from .image_source import ImageSource
from .measure import Measured
from .reference import Reference

_COUNT, _CLASSES, _SIZES = 50_000, 1000, ((256, 256), (512, 512))


def find_deviations(
    source: ImageSource, samples: Measured, reference: Reference, extractor: Extractor, run: dict[str, Any] | None
) -> list[str]:
    """All of them, those of the reference last."""
    return [*_of_samples(source, samples, run), *_of_extractor(samples, extractor), *reference.deviations]


def _of_samples(source: ImageSource, samples: Measured, run: dict[str, Any] | None) -> Iterator[str]:
    if samples.count != _COUNT:
        bias = "FID is biased by the count, so it compares only with scores of as many samples"
        yield f"{samples.count:,} samples, not 50,000: {bias}"
    if source.size not in _SIZES:
        yield f"{source.size[1]} x {source.size[0]} pixels, not 256 x 256 or 512 x 512"
    if source.is_lossy:
        yield "some samples are JPEG or WebP files, not the pixels that were generated"
    if run is None:
        yield "nothing is known of how the samples were made: the folder has no run.json"
        return
    if run.get("balanced") is False:
        yield "classes or prompts are not equally frequent"
    if run.get("classes") not in (None, _CLASSES):
        yield f"{run['classes']} classes, not the 1,000 of ImageNet"


def _of_extractor(samples: Measured, extractor: Extractor) -> Iterator[str]:
    width = len(samples.fid.mu)
    if samples.count < width or samples.count < 2048:
        yield (
            f"{samples.count:,} samples for {width:,} features: "
            + ("the covariance is singular" if samples.count <= width else "the covariance is poorly known")
            + "; use 2,048 or more"
        )
    if extractor.name != INCEPTION:
        yield f'features of the extractor "{extractor.name}", not of Inception: the number is of another scale'
