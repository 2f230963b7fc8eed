"""The order of the images: which rows make up the batch of an optimizer step, as a function of seed and step alone."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...sizes import Size
from ..config import Arrangement
from ..draws import mix
from .buckets import arrange_batches, cut

log = logging.getLogger(__name__)

_WINDOW = 16  # groups (shards) that are shuffled into one another


class Draw(NamedTuple):
    """One row of a batch."""

    index: int  #    of the image
    seed: int  #     of everything random about it, in [0, 2**63)
    weight: float  # 1, or 0 for a row that only fills up a process's share
    size: Size  #    height, width to make of it


def _generator(seed: int) -> np.random.RandomState:
    """NumPy's legacy generator, whose numbers are the same in every version: a run can go on with another one."""
    return np.random.RandomState([seed >> 32, seed & 0xFFFFFFFF])


class GlobalBatchSampler:
    """Batches over all processes, of which each gets an equal share.

    Every image comes once in an epoch; each batch is of one size. The union of the shares does not depend on the number
    of processes. A short last batch is filled up with rows of weight 0.

    Args:
        sizes: height, width of each image.
        batch_size: images of a batch, over all processes.
        drop_last: leave out what does not fill a batch, of each size.
        groups: numbers of consecutive images that are best read together (shards): groups are shuffled, then the images
            of some groups at a time.
        arrangement: of the batches, where there are several sizes.

    Raises:
        ValueError: no images, or with `drop_last` too few for one batch.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        batch_size: int,
        seed: int,
        *,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        groups: Sequence[int] | None = None,
        arrangement: Arrangement = "random",
    ) -> None:
        self._sizes, self._batch_size, self._seed, self._drop_last = sizes, batch_size, seed, drop_last
        self._rank, self._world_size, self._groups = rank, world_size, groups
        self._arrangement: Arrangement = arrangement
        self._distinct = sorted(set(sizes), key=lambda size: (size[0] * size[1], size[1]))
        self._plan: tuple[int, list[list[int]]] = (-1, [])
        if not len(sizes):
            raise ValueError("the data has no images.")
        self.steps_per_epoch = len(self._batches(0))
        if not self.steps_per_epoch:
            of_a_size = " of several sizes" if len(self._distinct) > 1 else ""
            raise ValueError(
                f"the data has {len(sizes)} images{of_a_size}, too few for a batch of {batch_size}: lower "
                "engine.batch_size, or set data.drop_last=false."
            )
        if drop_last and len(self._distinct) > 1 and rank == 0:
            self._report_small_buckets()

    def batch(self, step: int) -> list[Draw]:
        """This process's rows of optimizer step `step`, from 0, in whatever epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        seed = mix(self._seed, 2 * epoch + 3)
        first = number * self._batch_size  # seeds differ within an epoch, whatever the sizes of its batches
        draws = [
            Draw(index, mix(seed, first + row), 1.0, self._sizes[index])
            for row, index in enumerate(self._batches(epoch)[number])
        ]
        missing = -len(draws) % self._world_size
        draws += [draws[row % len(draws)]._replace(weight=0.0) for row in range(missing)]
        return draws[self._rank :: self._world_size]

    def _batches(self, epoch: int) -> list[list[int]]:
        """Indices of each batch of an epoch."""
        if self._plan[0] != epoch:
            self._plan = epoch, self._buckets(epoch) if len(self._distinct) > 1 else self._one_size(epoch)
        return self._plan[1]

    def _one_size(self, epoch: int) -> list[list[int]]:
        order = self._order(_generator(mix(self._seed, 2 * epoch + 2)))
        return cut(order.tolist(), self._batch_size, self._drop_last)

    def _order(self, generator: np.random.RandomState) -> np.ndarray:
        if self._groups is None:
            return generator.permutation(len(self._sizes))
        ends = list(itertools.accumulate(self._groups))
        shuffled = generator.permutation(len(ends)).tolist()
        windows = [shuffled[i : i + _WINDOW] for i in range(0, len(shuffled), _WINDOW)]
        spans = [np.concatenate([np.arange(ends[g] - self._groups[g], ends[g]) for g in window]) for window in windows]
        return np.concatenate([generator.permutation(span) for span in spans])

    def _buckets(self, epoch: int) -> list[list[int]]:
        place = {size: number for number, size in enumerate(self._distinct)}
        ids = [place[size] for size in self._sizes]
        rng = random.Random(mix(self._seed, 2 * epoch + 2))
        return arrange_batches(ids, self._batch_size, rng, arrangement=self._arrangement, drop_last=self._drop_last)

    def _report_small_buckets(self) -> None:
        """Warns of images that no epoch has, because their size has too few for a batch."""
        small = [count for count in Counter(self._sizes).values() if count < self._batch_size]
        if small:
            log.warning(
                "%d images are never used: their %d buckets have fewer images than a batch of %d. Set "
                "data.drop_last=false, lower engine.batch_size, or use fewer buckets.",
                sum(small), len(small), self._batch_size,
            )  # fmt: skip
