"""One optimizer step over any number of processes, and its state in files. The only user of accelerate.

A step sees its global batch as rows with weights: a process gets an equal share of them, in micro-batches, and each row
counts once, whatever the split. So gradients do not depend on processes, accumulation or a short last batch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..dtypes import emulation_note
from ..extras import require
from .config import TrainConfig
from .data.batch import Loaded
from .draws import Draws
from .ema import Averages
from .loss import Batch, Loss
from .optim import build_optimizers
from .run_folder import RunFolder
from .schedule import learning_rate_at

log = logging.getLogger(__name__)

Ahead = Callable[[], Loaded | None]
MakeBatch = Callable[[Loaded, torch.device], tuple[Batch, Draws]]
_ELSEWHERE = "Another process ran out of memory."
_AVERAGES, _STATE = "averages.safetensors", "state.json"


class StepResult(NamedTuple):
    """What a step did, the same in every process."""

    loss: float
    parts: dict[str, float]  # of the loss
    grad_norm: float  #        before clipping
    skipped: bool  #           for the loss or a gradient was not finite
    stop: bool  #              a process was asked to stop


class Engine:
    """Trains one `Loss`: forward, backward, optimizers, averages, and saving all of them."""

    def __init__(self, config: TrainConfig) -> None:
        accelerate = require("accelerate")
        self._ddp = accelerate.DistributedDataParallelKwargs()
        self.config = config
        self.accelerator = accelerate.Accelerator(
            mixed_precision="bf16" if config.engine.precision == "bf16" else "no",
            kwargs_handlers=[self._ddp],
        )
        if config.engine.precision == "bf16" and (note := emulation_note(torch.bfloat16, self.device)):
            log.warning("%s: engine.precision=fp32", note)
        self.micro_batch = config.engine.micro_batch
        self._is_fitted = False
        self.is_broken = False  # the weights are not finite: nothing of them may be saved
        self._ahead: tuple[Tensor, tuple[Batch, Draws]] | None = None

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are split over the processes (FSDP)."""
        return self.accelerator.distributed_type == require("accelerate").DistributedType.FSDP

    def prepare(self, loss: Loss, make_batch: MakeBatch) -> None:
        """Move to the device, wrap for several processes; builds optimizers and averages.

        Raises:
            ValueError: Muon or a LoRA with sharded weights.
        """
        if self.is_sharded and self.config.optim.optimizer == "muon":
            raise ValueError("Muon needs whole matrices, and FSDP shards them: choose optim.optimizer=adamw, or DDP.")
        if self.is_sharded and self.config.lora is not None:
            raise ValueError("a LoRA needs little memory and trains with DDP, not FSDP: leave --use_fsdp out.")
        self._ddp.find_unused_parameters = loss.may_leave_out_parameters
        optimizers = build_optimizers(loss, self.config.optim)
        wrapped, *prepared = self.accelerator.prepare(loss, *optimizers)
        self.loss, self.optimizers, self.make_batch = wrapped, prepared, make_batch
        self.module: Loss = self.accelerator.unwrap_model(wrapped)
        self.averages = Averages(self.weights(), self.config.average)

    def weights(self) -> dict[str, Tensor]:
        """The raw weights of the network, by canonical name; shares of them if sharded."""
        return self.module.weights()

    def whole_network(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Raw or averaged weights as a file has them: whole, on the CPU, and with those of a frozen encoder.

        Every process must call it.
        """
        return self.whole({**tensors, **self.module.frozen_weights()})

    # one step

    def step(
        self, loaded: Loaded, step: int, stop: Callable[[], bool] = lambda: False, ahead: Ahead = lambda: None
    ) -> StepResult:
        """The optimizer step number `step`, from 0, on this process's share of the global batch.

        `ahead` gives the share of the next step; it is called, and put on the device, while this one computes.

        `stop` is asked in the end, and the processes agree on it. Out of memory, a process that trains alone halves its
        micro-batches and repeats the step; several agree on micro-batches that fit before their first step, for none
        can repeat a step alone. The batch stays whole.

        Raises:
            torch.OutOfMemoryError: with several processes, after their first step, or a micro-batch of one image.
        """
        if self.world_size > 1 and not self.is_sharded and not self._is_fitted:
            self._fit_micro_batch(loaded, step)
        while True:
            try:
                sums = self._gradients(loaded, step)
                break
            except RuntimeError as error:
                self._after_out_of_memory(error, len(loaded.seeds))
        parameters = [p for p in self.loss.parameters() if p.requires_grad]
        limit = self.config.optim.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        self._prepare_ahead(ahead())  # before anything waits for the device
        names = list(sums)
        flags = torch.full((1,), float(stop()), device=self.device)
        totals = self.accelerator.reduce(torch.cat([torch.stack([*sums.values()]), flags]), "sum")
        *values, stops, grad_norm = torch.cat([totals, _whole(norm).reshape(1).to(totals)]).tolist()
        total = math.fsum(values) if all(map(math.isfinite, values)) else math.nan
        finite = math.isfinite(total) and math.isfinite(grad_norm)
        if finite:
            self._update(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return StepResult(total, dict(zip(names, values, strict=True)), grad_norm, not finite, stops > 0)

    def _gradients(self, loaded: Loaded, step: int) -> dict[str, Tensor]:
        """Backward of the whole share; this process's part of each part of the loss."""
        self.loss.train()
        images = self.accelerator.reduce(loaded.weights.sum().to(self.device, non_blocking=True), "sum")
        sums: dict[str, Tensor] = {}
        share = loaded.split(self.micro_batch or len(loaded.seeds))
        for number, rows in enumerate(share):
            last = number == len(share) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.loss):
                batch, draws = self._take_ahead(rows, number) or self.make_batch(rows, self.device)
                parts = {
                    name: (value * batch.weight).sum() / images for name, value in self.loss(batch, draws, step).items()
                }
                # gradients are averaged over processes, and each has divided by the images of all
                self.accelerator.backward(torch.stack([*parts.values()]).sum() * self.world_size)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
        return sums

    def _prepare_ahead(self, loaded: Loaded | None) -> None:
        """The first micro-batch of the next step."""
        if loaded is not None:
            rows = loaded.split(self.micro_batch or len(loaded.seeds))[0]
            self._ahead = rows.seeds, self.make_batch(rows, self.device)

    def _take_ahead(self, rows: Loaded, number: int) -> tuple[Batch, Draws] | None:
        """What was prepared for these rows, if anything was."""
        if number or self._ahead is None or not torch.equal(self._ahead[0], rows.seeds):
            return None
        (_, made), self._ahead = self._ahead, None
        return made

    def _fit_micro_batch(self, loaded: Loaded, step: int) -> None:
        """Halve the micro-batch until it fits in every process; their gradients are not synchronized here."""
        while True:
            failure: RuntimeError | None = None
            rows = loaded.split(self.micro_batch or len(loaded.seeds))[0]
            try:
                with self.accelerator.no_sync(self.loss):
                    parts = self.loss(*self.make_batch(rows, self.device), step)
                    self.accelerator.backward(torch.stack([*parts.values()]).sum())
            except RuntimeError as error:
                failure = error
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            failures = self.accelerator.reduce(torch.tensor(float(failure is not None), device=self.device), "sum")
            if not failures.item():
                break
            self._halve(failure or torch.OutOfMemoryError(_ELSEWHERE), len(rows.seeds))
        self._is_fitted = True

    def _update(self, step: int) -> None:
        rate = learning_rate_at(step, self.config.optim, self.config.engine.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.is_broken = not self.averages.update(self.weights(), step + 1)

    def _after_out_of_memory(self, error: RuntimeError, rows: int) -> None:
        """Halve the micro-batch, or raise the error again."""
        if self.world_size > 1:
            raise error
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self._halve(error, min(self.micro_batch or rows, rows))

    def _halve(self, error: RuntimeError, size: int) -> None:
        """Micro-batches of half this size, if the error is about memory and they can be smaller."""
        memory = require("accelerate.utils.memory")
        if not memory.should_reduce_batch_size(error) or size == 1:
            raise error
        memory.clear_device_cache(garbage_collection=True)
        self.micro_batch = math.ceil(size / 2)
        log.warning(
            "out of memory with micro-batches of %d images: going on with %d; the batch stays at %d.",
            size, self.micro_batch, self.config.engine.batch_size,
        )  # fmt: skip

    # files

    def save(self, run: RunFolder, step: int, notes: dict[str, Any]) -> None:
        """Write the state after `step` steps: complete or not there."""
        part = run.part(step)
        if self.is_main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        averages = self.whole(self.averages.state_dict())
        if self.is_main:
            save_file(averages, part / _AVERAGES)
            state = {"step": step, "micro_batch": self.micro_batch, "processes": self.world_size, **notes}
            (part / _STATE).write_text(json.dumps(state), "utf-8")
        self.accelerator.wait_for_everyone()
        if self.is_main:
            run.complete(step, self.config.engine.keep)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> dict[str, Any]:
        """Continue from a saved state; its notes.

        Raises:
            ValueError: it is of another network.
        """
        try:
            self.accelerator.load_state(str(folder))
            with safe_open(folder / _AVERAGES, "pt") as file:
                self.averages.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no mapping
            state = json.loads((folder / _STATE).read_text("utf-8"))
        except (RuntimeError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{folder} does not fit this run ({reason}). Resume with the recipe of its run."
            ) from error
        self.micro_batch = state["micro_batch"] if self.micro_batch is None else self.micro_batch
        return state

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the CPU, gathered from all processes if sharded; every process must call it."""
        return {name: _whole(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of the run, for sampling."""
        with self.accelerator.autocast():
            yield


def _whole(tensor: Any) -> Tensor:
    """A sharded tensor as a whole one."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else torch.as_tensor(tensor)
