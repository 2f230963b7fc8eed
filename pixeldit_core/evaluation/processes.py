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

    def wait(self) -> None:
        """Until every process is here."""
        if self.state is not None:
            self.state.wait_for_everyone()


def join_processes(device: torch.device | None) -> Processes:
    """The processes that this one was launched with; alone without a launcher, for which accelerate is not needed.

    Args:
        device: None = this process's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        assert device is not None, "the caller chooses the device of a process alone"
        return Processes(0, 1, device)
    on_cpu = (device is not None and device.type == "cpu") or not torch.accelerator.is_available()
    state = require("accelerate").PartialState(cpu=on_cpu, timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, device or state.device, state)
