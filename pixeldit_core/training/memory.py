"""How much memory and work a run needs, computed from shapes: no weights, no GPU, no data."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families import build_network
from ..families.record import Params
from ..model import Model, build_model
from ..sizes import Size
from ..spec import ModelSpec
from .config import LoraConfig, TrainConfig
from .frozen import has_encoder, set_trainable, trainable
from .optim import Named, split_parameters
from .saved_tensors import Counts, count_saved, flash_attention

TEXT_TOKENS = 77  # of a caption where a mask excludes padding; elsewhere the text is padded to its full length
_WORKING_SHARE = 0.1  # of a GPU's memory, for what comes and goes within an operation


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one process; bytes, and floating-point operations (a multiply-add counts as two)."""

    parameters: int
    frozen: int  #       parameters of an encoder inside, that never get a gradient
    trained: int  #      parameters that get a gradient
    weights: int  #      float32
    gradients: int  #    float32
    optimizer: int
    averages: int
    buckets: int  #      copies of the gradients that several processes exchange
    casts: int  #        bfloat16 copies of the weights, from forward to backward
    tables: int  #       positions, the same for all images
    activations: int  # of an image, from forward to backward
    flops: int  #        of an image: forward, backward, and the second forward of activation checkpointing

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of images."""
        state = self.weights + self.gradients + self.optimizer + self.averages
        return state + self.buckets + self.casts + self.tables

    def total(self, images: int) -> int:
        """Bytes with a micro-batch of so many images."""
        return self.fixed + images * self.activations

    def largest_micro_batch(self, memory: float) -> int:
        """Images that fit into so many bytes, a tenth of them left for what an operation needs beside its results."""
        return max(0, int(((1 - _WORKING_SHARE) * memory - self.fixed) // self.activations))


def estimate(spec: ModelSpec, config: TrainConfig, size: Size, *, processes: int = 1) -> Estimate:
    """Of a run on images of (height, width) in `processes` that each hold all weights.

    Not counted: REPA's encoder and projector, and what CUDA itself takes. `engine.compile` needs less than this.
    """
    network = build_network(spec.family, spec.params)
    named = list(trainable(Model(spec, network)))
    count = sum(parameter.numel() for parameter in network.parameters())
    frozen = count - sum(parameter.numel() for _, parameter in named)
    state = count + sum(buffer.numel() for buffer in network.buffers())
    lora = 0 if config.lora is None else _lora_parameters(named, config.lora)
    trained = lora or count - frozen
    small, large, seen = _counts(spec.family.name, spec.params, size, config.engine.precision == "bf16")
    first, second = (counts.bytes(config.engine.activation_checkpointing) for counts in (small, large))
    # the second forward is of the blocks, which are nearly all of it
    passes = 4 if config.engine.activation_checkpointing else 3
    return Estimate(
        parameters=count,
        frozen=frozen,
        trained=trained,
        weights=4 * (state + lora),
        gradients=4 * trained,
        optimizer=8 * lora if lora else _optimizer_bytes(named, config.optim.optimizer),
        averages=4 * (lora or state - frozen) * (len(config.average.decays) + len(config.average.power)),
        buckets=4 * trained if processes > 1 else 0,
        casts=small.copies,
        tables=max(0, first - _BATCHES[0] * (second - first)),
        activations=second - first,
        flops=(passes * (small.flops - seen) + seen) // _BATCHES[0],
    )


_BATCHES = (2, 3)  # sizes whose difference is one image; with one image, some copies are only views


@functools.lru_cache(maxsize=64)
def _counts(family: str, params: Params, size: Size, bf16: bool) -> tuple[Counts, Counts, int]:
    """Of forward passes of the network and its squared error, on two batches; and the work of a frozen encoder in the
    smaller one, which has no backward pass."""
    model = build_model(family, params, device="meta", attention=flash_attention)
    set_trainable(model)
    counts = [_count(model, size, batch, bf16=bf16, flops=batch == _BATCHES[0]) for batch in _BATCHES]
    return counts[0], counts[1], _encoder_flops(model, size, _BATCHES[0])


def _encoder_flops(model: Model, size: Size, batch: int) -> int:
    if not has_encoder(model):
        return 0
    inputs: list[Tensor] = []
    encoder = model.network.get_submodule(model.family.encoder)
    handle = encoder.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    _count(model, size, batch, bf16=False, flops=False)
    handle.remove()
    return count_saved(encoder, lambda: encoder(inputs[0]), bf16=False).flops


def _count(model: Model, size: Size, batch: int, **options: bool) -> Counts:
    with torch.device("meta"):
        x, t = torch.empty(batch, model.params.in_channels, *size), torch.empty(batch)
        condition = _condition(model.spec, batch)

    def loss() -> Tensor:
        predicted = model.family.velocity(model.network, model.params, x, t, condition)
        return (predicted.float() - x).square().flatten(1).mean(1)

    return count_saved(model.network, loss, **options)


def _condition(spec: ModelSpec, batch: int) -> tuple[Tensor, ...]:
    """Labels, all of them grounded, or a text of as many tokens as in training."""
    parts = spec.family.text_parts
    if not parts:
        labels = torch.empty(batch, dtype=torch.int64)
        return (labels, torch.zeros(batch, dtype=torch.bool, device="cpu")) if spec.family.encoder else (labels,)
    width, length = spec.params.txt_embed_dim, spec.params.txt_max_length
    length = min(length, TEXT_TOKENS) if "mask" in parts else length
    shapes = {"embeds": (batch, length, width), "mask": (batch, length), "pooled": (batch, width)}
    return tuple(torch.empty(shapes[part]) for part in parts)


def _optimizer_bytes(named: Named, optimizer: str) -> int:
    """AdamW keeps two float32 numbers for each parameter, Muon one."""
    matrices, others = split_parameters(named) if optimizer == "muon" else ([], named)
    return 4 * sum(p.numel() for _, p in matrices) + 8 * sum(p.numel() for _, p in others)


def _lora_parameters(named: Named, config: LoraConfig) -> int:
    """Of two thin matrices for each matrix that has an update."""
    matrices, _ = split_parameters(named)
    if config.targets:
        ends = tuple(f"{target}.weight" for target in config.targets)
        matrices = [(name, p) for name, p in named if p.ndim == 2 and name.endswith(ends)]
    return config.rank * sum(sum(parameter.shape) for _, parameter in matrices)
