"""Weights to start training from; networks themselves do not initialize any."""

from __future__ import annotations

import torch
from torch import nn

from ..model import Model

_WITH_DEFAULTS = (nn.Linear, nn.Embedding, nn.Conv2d, nn.ConvTranspose2d)


def initialize(model: Model) -> None:
    """Fills every parameter of a class-conditional model in place, from torch's global generator.

    Raises:
        ValueError: a family without an initialization here.
    """
    if model.family.name not in _INITIALIZERS:
        raise ValueError(f"{model.family.name} cannot be trained; families that can are {', '.join(_INITIALIZERS)}.")
    network = model.network
    for module in network.modules():
        if isinstance(module, _WITH_DEFAULTS):
            module.reset_parameters()
    for name, parameter in network.named_parameters():
        _INITIALIZERS[model.family.name](name, parameter)
    missing = [name for name, parameter in network.named_parameters() if not torch.isfinite(parameter).all()]
    assert not missing, f"not initialized: {missing}"


def _pixeldit(name: str, parameter: nn.Parameter) -> None:
    """As published (spec: official, 7): zero modulation and output, so that the first prediction is 0; Xavier for the
    patch embedding; N(0, 0.02) for time and class; the rest as in torch."""
    if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
        nn.init.zeros_(parameter)
    elif "norm" in name:
        nn.init.ones_(parameter)
    elif name.startswith("s_embedder") and parameter.ndim == 2:
        nn.init.xavier_uniform_(parameter)
    elif name.startswith("s_embedder"):
        nn.init.zeros_(parameter)
    elif name.startswith(("t_embedder", "y_embedder")) and parameter.ndim == 2:
        nn.init.normal_(parameter, std=0.02)


def _xpred(name: str, parameter: nn.Parameter) -> None:
    """The same for an x-prediction network, but for the scales of its blocks.

    They are not added to 1, so their biases are 1 here; the published 0 lets hardly a gradient through at first.
    """
    if "adaLN_modulation" in name or "mlp_cond" in name or name.startswith("final_layer.linear"):
        nn.init.zeros_(parameter)
    elif "norm" in name:
        nn.init.ones_(parameter)
    elif "pos_embed" in name or name == "class_registers":
        nn.init.normal_(parameter, std=0.02)
    if name.endswith(("adaLN_modulation.1.bias", "mlp_cond.1.bias")) and "blocks." in name:
        first = 1 if "adaLN" in name else 0  # shift, scale, gate of a patch block; scale, shift, gate of a pixel block
        parameter.data.unflatten(0, (6, -1))[[first, first + 3]] = 1.0


_INITIALIZERS = {
    "pixeldit": _pixeldit,
    **dict.fromkeys(("xpred_dit", "xpred_mmdit", "xpred_pixeldit", "xpred_mmpixeldit"), _xpred),
}
