"""What an extractor sees in a set of images: statistics, logits, and features for precision and recall."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .extractor import Extractor
from .image_source import ImageSource, Labeled
from .moments import Moments, Statistics

MOST_REFERENCES = 10_000  # whose features are kept: as many images as ADM's reference batches have


@dataclass(frozen=True)
class Measured:
    """Of N images; rows are sorted by the images' hashes, so that nothing depends on the order of reading."""

    count: int
    fid: Statistics
    spatial: Statistics | None
    features: Tensor  #       float32 [at most `most`, D], of FID's layer
    logits: Tensor | None  #  float32 [N, K]
    labels: Tensor | None  #  int64 [N]; None = not known for all


class SortedRows:
    """Rows of some tensors by a key each, of which those with the smallest keys are kept."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.keys: list[bytes] = []
        self._rows: list[Tensor] = []

    def add(self, keys: list[bytes], rows: Tensor) -> None:
        """Another batch [B, ...]."""
        self.keys += keys
        self._rows.append(rows.cpu())
        if self.most is not None and len(self.keys) > 2 * self.most:
            self._sort()

    def result(self) -> Tensor | None:
        """The kept rows, sorted; None = there are none."""
        if not self.keys:
            return None
        self._sort()
        return self._rows[0]

    def _sort(self) -> None:
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)[: self.most]
        self.keys, self._rows = [self.keys[row] for row in order], [torch.cat(self._rows)[order]]


def measure_images(
    source: ImageSource,
    extractor: Extractor,
    device: torch.device,
    *,
    most: int | None = None,
    with_logits: bool = True,
    batch_size: int = 64,
) -> Measured:
    """Read and measure every image.

    Args:
        most: features to keep, those with the smallest hashes of their images; None = all.
        with_logits: keep logits and labels too.

    Raises:
        ValueError: fewer than two images, one that cannot be read, or features that are not finite.
    """
    if source.count < 2:
        raise ValueError(
            f"{source.path}: statistics need at least 2 images; there is {source.count}. Name more of them."
        )
    moments = {layer: Moments() for layer in (extractor.fid, extractor.spatial) if layer}
    features, logits, labels = SortedRows(most), SortedRows(), SortedRows()
    with tqdm(total=source.count, desc=source.path.name, unit=" images", leave=False, disable=None) as bar:
        for batch in _batches(source.images(), batch_size):
            pixels = torch.from_numpy(np.stack([image.pixels for image in batch]))
            found = extractor(pixels.permute(0, 3, 1, 2).to(device))
            for layer, total in moments.items():
                total.add(found[layer])
            keys = [hashlib.blake2b(image.pixels.tobytes(), digest_size=16).digest() for image in batch]
            features.add(keys, found[extractor.fid].float())
            if with_logits and extractor.logits:
                logits.add(keys, found[extractor.logits].float())
                labels.add(keys, torch.tensor([-1 if image.label is None else image.label for image in batch]))
            bar.update(len(batch))
    rows, values, known = features.result(), logits.result(), labels.result()
    assert rows is not None, "a source has images"
    known = None if known is None or (known < 0).any() else known
    statistics = {layer: total.statistics() for layer, total in moments.items()}
    fid, spatial = statistics[extractor.fid], statistics[extractor.spatial] if extractor.spatial else None
    finite = all(np.isfinite(found.mu).all() and np.isfinite(found.sigma).all() for found in statistics.values())
    if not finite or (values is not None and not values.isfinite().all()):
        raise ValueError(
            f'the extractor "{extractor.name}" gives numbers for {source.path} that are not finite: its weights are '
            "damaged. Get them again."
        )
    return Measured(moments[extractor.fid].count, fid, spatial, rows, values, known)


def _batches(images: Iterable[Labeled], size: int) -> Iterator[list[Labeled]]:
    images = iter(images)
    while batch := list(islice(images, size)):
        yield batch
