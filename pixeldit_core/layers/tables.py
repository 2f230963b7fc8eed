"""Tables of positions, which depend on sizes alone: made at a network's first call of a size, not at each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

COUNT = 8  # two to four sizes of images: a network has two to four tables for each


class KeptTables:
    """The tables of the last few sizes: `tables(make, *arguments)` is make(*arguments), made once.

    To make one launches a dozen small kernels and may copy from the CPU, for which a GPU waits. Nothing is kept of
    compiled calls: there, a table is a part of the graph, which may run as a CUDA graph.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()

    def __call__(self, make: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """What make(*arguments) returns. The arguments are hashable, and name the device."""
        if torch.compiler.is_compiling():
            return make(*arguments)
        key = (make, *arguments)
        table = self._kept.pop(key, None)
        if table is None:
            # a table that is made in inference mode could not be used in training later
            with torch.inference_mode(False), torch.no_grad():
                table = make(*arguments)
        if type(table) is Tensor:  # no stand-in of a program that traces the call
            self._kept[key] = table
            while len(self._kept) > COUNT:
                self._kept.popitem(last=False)
        return table

    def __iter__(self) -> Iterator[Tensor]:
        return iter(tuple(self._kept.values()))

    def __deepcopy__(self, memo: object) -> KeptTables:
        return KeptTables()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptTables, ()
