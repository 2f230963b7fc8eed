"""Files that a run makes of its weights: models, snapshots and sample sheets. Every process calls these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints.save import write
from ..dtypes import DTYPES
from ..images import write_png
from ..model import Model, build_model
from .engine import Engine
from .frozen import without_encoder
from .lora import write_lora
from .run_folder import RunFolder
from .setup import Setup
from .sheet import WithWeights, sample_sheet
from .snapshots import write_snapshot


def write_models(engine: Engine, setup: Setup, run: RunFolder, step: int) -> None:
    """The newest average and the raw weights, each in a file of its own."""
    average = engine.whole_network(engine.averages.main)
    raw = engine.whole_network(engine.weights())
    if not engine.is_main:
        return
    write_average(setup, average, run.lora if setup.config.lora else run.model, step)
    _write(setup, raw, run.raw_lora if setup.config.lora else run.raw_model, step, {"weights": "raw"})


def write_average(setup: Setup, tensors: Mapping[str, Tensor], path: Path, step: int) -> None:
    """The average that checkpoints and samples use, gathered already; only the main process calls this.

    Raises:
        ValueError: it cannot be written.
    """
    decays = setup.config.average.decays
    _write(setup, tensors, path, step, {"weights": "ema", **({"decay": decays[0]} if decays else {})})


def _write(setup: Setup, tensors: Mapping[str, Tensor], path: Path, step: int, about: Mapping[str, Any]) -> None:
    origin = {"step": step, "recipe": setup.config.title, **about, **setup.origin}
    if setup.config.lora is not None:
        write_lora(tensors, path, setup.config.lora, origin)
    else:
        write(setup.model.spec, tensors, path, dtype=DTYPES[setup.config.engine.save_dtype], origin=origin)


def write_snapshots(engine: Engine, setup: Setup, run: RunFolder, step: int) -> None:
    """One file of each power-function average, to reconstruct averages of other lengths from; no frozen encoder."""
    for length, tensors in engine.averages.power.items():
        whole = engine.whole(tensors)
        if engine.is_main:
            write_snapshot(without_encoder(setup.model.spec), whole, run.snapshots, step, length)


def write_sheet(engine: Engine, setup: Setup, run: RunFolder, step: int) -> None:
    """Samples of the average."""
    tensors = engine.whole_network(engine.averages.main)
    if not engine.is_main:
        return
    on_device = {name: tensor.to(engine.device) for name, tensor in tensors.items()}
    if setup.config.lora is None:
        network = build_model(setup.model.family, setup.model.params).network.eval()
    else:
        network = engine.module.network.eval()  # until the next step
    model = Model(setup.model.spec, WithWeights(network, on_device))
    with engine.autocast():
        sheet = sample_sheet(model, setup.config.sample, setup.texts, setup.size)
    write_png(sheet, run.sample_sheet(step))
