"""Run by test_two_processes.py under torchrun: gradients of one step, and runs that stop and go on.

torchrun --nproc-per-node 2 two_processes.py IMAGES OUT
"""

import contextlib
import signal
import sys
from pathlib import Path

import torch
from training.pixeldit2_runs import run_config
from training_runs import config_of, gradients_of, train

from pixeldit_core.training import engine
from pixeldit_core.training.loss import Loss


def stop_one_process(step):
    """A signal for one of the processes in this step; the other must stop with it."""
    original = engine.Engine.step

    def wrapped(self, loaded, current, stop, ahead):
        if current == step - 1 and self.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, loaded, current, stop, ahead)

    engine.Engine.step = wrapped
    return original


def run_with_little_memory(images, out):
    """A run in which one of the processes has memory for two images only."""
    original = Loss.forward

    def limited(self, batch, draws, step=0):
        if len(batch.image) > 2 and torch.distributed.get_rank() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return original(self, batch, draws, step)

    Loss.forward = limited
    train(config_of(images, engine=_ENGINE | {"steps": 5}), out)
    Loss.forward = original


def main():
    torch.set_num_threads(1)
    images, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in CASES:
        gradients, rank = gradients_of(case_config(name, images), STEPS[name])
        if rank == 0:
            torch.save(gradients, out / f"{name}.pt")
    run_with_little_memory(images, out / "little")
    train(config_of(images), out / "whole")
    original = stop_one_process(37)
    with contextlib.suppress(KeyboardInterrupt):
        train(config_of(images), out / "stopped")
    engine.Engine.step = original
    train(config_of(images), out / "stopped", resume=True)


_ENGINE = {"steps": 60, "batch_size": 8, "seed": 5}
CASES = {
    "plain": {"engine": _ENGINE},
    "accumulated": {"engine": _ENGINE | {"micro_batch": 3}},
    "grounded": {"engine": _ENGINE | {"micro_batch": 1}, "objective": {"grounding_dropout": 0.6}},
    "short": {"engine": _ENGINE | {"batch_size": 14, "micro_batch": 2}, "data": {"drop_last": False}},
}
# 60 = 4 * 14 + 4; a short batch is the last of an epoch
STEPS = {"plain": 0, "accumulated": 3, "grounded": 2, "short": 4}


def case_config(name, images):
    """A case; the grounded one is of PixelDiT2, with the encoder beside the images. Of its micro-batches of one image
    most are not grounded, and in most of the calls one process grounds its image and the other does not."""
    if name == "grounded":
        return run_config(images, images.parent / "encoder" / "model.safetensors", **CASES[name])
    return config_of(images, **CASES[name])


if __name__ == "__main__":
    main()
