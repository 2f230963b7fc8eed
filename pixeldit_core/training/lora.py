"""Low-rank updates in place of the weights, through peft, in files that our LoRA node and ComfyUI's loaders read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.save import write_tensors
from ..extras import require
from ..model import Model
from .blocks import transformer_blocks
from .config import LoraConfig

_ADAPTER = "default"
_PREFIX = "diffusion_model."  # of ComfyUI's key style, which peft's names of the two matrices follow


def add_lora(model: Model, config: LoraConfig, seed: int = 0) -> None:
    """Put trainable pairs beside the matrices of the blocks; everything else is frozen.

    Args:
        seed: of the first matrix of each pair; the second starts at 0.

    Raises:
        ImportError: peft is missing.
        ValueError: targets that the network does not have.
    """
    peft = require("peft")
    names = target_names(model.network, config.targets, model.family.encoder)
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model.network, adapter_name=_ADAPTER)
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_("lora_" in name)


def target_names(network: nn.Module, targets: tuple[str, ...] = (), frozen: str = "") -> list[str]:
    """Full names of the matrices that a LoRA changes: those of the blocks, or those whose name ends with a target.

    `frozen` is a module none of whose matrices is meant, such as an encoder.

    Raises:
        ValueError: a target that no matrix has.
    """
    matrices = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not (frozen and name.startswith(f"{frozen}."))
    ]
    if not targets:
        blocks = tuple(f"{name}." for name in transformer_blocks(network))
        return [name for name in matrices if name.startswith(blocks)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in matrices):
            ends = sorted({name.rpartition(".")[2] for name in matrices})
            raise ValueError(f'lora.targets: no matrix is called "{target}"; names end with {", ".join(ends)}.')
    return [name for name in matrices if any(name == target or name.endswith(f".{target}") for target in targets)]


def write_lora(tensors: Mapping[str, Tensor], path: Path, config: LoraConfig, origin: Mapping[str, Any]) -> Path:
    """Write the pairs of a network, named as `Loss.weights` names them, as one `.safetensors` file.

    Keys are `diffusion_model.<module>.lora_A.weight`, `lora_B.weight` and `alpha`. Written atomically.

    Args:
        origin: what it was made from, for the metadata.

    Raises:
        ValueError: the file cannot be written.
    """
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module = name.partition(".lora_")[0]
        written[_PREFIX + name.replace(f".{_ADAPTER}.", ".")] = tensor.detach().cpu().contiguous()
        written[f"{_PREFIX}{module}.alpha"] = torch.tensor(config.alpha)
    about = {"rank": config.rank, "alpha": config.alpha, "version": __version__, **origin}
    return write_tensors(written, path, {"format": "pt", "pixeldit_lora": json.dumps(about)})
