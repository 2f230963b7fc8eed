"""Which image is which: the class, or the prompt, and the seed of image k, by k alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

LARGEST_SEED = 2**32  # torch's generator on the CPU takes no more bits: larger seeds repeat


@dataclass(frozen=True)
class Plan:
    """Image k has the entry `entries[k % len(entries)]` and the seed `first_seed + k`.

    So the images of a smaller count are the first ones of a larger count, and no process has to know another.

    Args:
        count: of images.
        entries: classes, or numbers of prompts; each as often as it stands there.

    Raises:
        ValueError: no images or entries, or seeds beyond 2^32.
    """

    count: int
    entries: tuple[int, ...]
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not self.entries:
            raise ValueError("there is nothing to generate: give a count above 0, and at least one class or prompt.")
        if self.first_seed < 0 or self.first_seed + self.count > LARGEST_SEED:
            raise ValueError(
                f"image k has the seed {self.first_seed} + k, and {self.count} of them go beyond 2^32, where seeds "
                "repeat. Choose a smaller --first-seed."
            )

    def entry(self, index: int) -> int:
        """Class or prompt of an image."""
        return self.entries[index % len(self.entries)]

    def seed(self, index: int) -> int:
        """Seed of an image's noise."""
        return self.first_seed + index

    def batches(self, size: int, share: int = 0, shares: int = 1) -> Iterator[range]:
        """Images by `size` at a time: every `shares`-th batch, from number `share`.

        The composition of a batch depends on its size alone, so every division makes the same batches.
        """
        for first in range(share * size, self.count, shares * size):
            yield range(first, min(first + size, self.count))

    def counts(self) -> Counter[int]:
        """How many images each entry has."""
        rounds, rest = divmod(self.count, len(self.entries))
        counts = Counter({entry: rounds * times for entry, times in Counter(self.entries).items()})
        counts.update(self.entries[:rest])
        return counts

    def check_balance(self) -> None:
        """Raises ValueError, naming the nearest counts that do, unless the count is a multiple of the entries."""
        length = len(self.entries)
        if self.count % length == 0:
            return
        below = self.count // length * length
        nearest = f"{below} or {below + length}" if below else f"{length}"
        raise ValueError(
            f"{self.count} images do not divide into {length} classes or prompts: some would have one more than "
            f"others. Choose --count {nearest}, other --classes, or --unbalanced if that is intended."
        )

    def to_dict(self) -> dict[str, object]:
        """What identifies the images, whatever their count: plain values for JSON."""
        digest = hashlib.sha256(json.dumps(self.entries).encode()).hexdigest()
        return {"entries": len(self.entries), "entries_sha256": digest, "first_seed": self.first_seed}
