"""The processes of one `accelerate launch` or torchrun. The only user of accelerate in this room."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from ..extras import require

_PATIENCE = timedelta(days=7)  # of a process that has finished, for the others


@dataclass(frozen=True)
class Processes:
    """This process among others."""

    rank: int
    count: int
    device: torch.device
    state: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what there is only one of."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.state is None:
            return value
        return require("accelerate.utils").broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.state is not None:
            self.state.wait_for_everyone()


def join_processes(device: torch.device, *, automatic: bool) -> Processes:
    """The processes that this one was launched with; alone without a launcher, for which accelerate is not needed.

    Args:
        automatic: several processes each take a device of this kind of their own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, device)
    state = require("accelerate").PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, state.device if automatic else device, state)
