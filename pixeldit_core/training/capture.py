"""What modules inside a network return while a loss calls it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Captured:
    """The outputs of some modules, kept while `recording` and until they are taken.

    Set up before the network is compiled: a compiler does not see hooks that come later.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._recording = False
        self._outputs: dict[int, Any] = {}
        for number, module in enumerate(modules):
            module.register_forward_hook(lambda _, arguments, output, number=number: self._keep(number, output))

    def _keep(self, number: int, output: Any) -> None:
        if self._recording:  # not when activation checkpointing computes a block again
            self._outputs[number] = output

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what the modules return inside of this context, of the last call of each."""
        self._outputs.clear()
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def take(self) -> list[Any]:
        """The outputs, one for each module."""
        outputs = [self._outputs[number] for number in sorted(self._outputs)]
        self._outputs.clear()
        return outputs
