"""Weights to start training from; networks themselves do not initialize any."""

from __future__ import annotations

import torch
from torch import nn

from ..model import Model
from .frozen import is_frozen, trainable

_WITH_DEFAULTS = (nn.Linear, nn.Embedding, nn.Conv2d, nn.ConvTranspose2d)


def initialize(model: Model) -> None:
    """Fills every parameter of a model in place but those of a frozen encoder, from torch's global generator."""
    network = model.network
    for name, module in network.named_modules():
        if isinstance(module, _WITH_DEFAULTS) and not is_frozen(model.family, name):
            module.reset_parameters()
    named = dict(trainable(model))
    for name, parameter in named.items():
        INITIALIZERS[model.family.name](name, parameter)
    missing = [name for name, parameter in named.items() if not torch.isfinite(parameter).all()]
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


def _pixeldit_t2i(name: str, parameter: nn.Parameter) -> None:
    """By analogy with the class-conditional network, for the specification is silent: the text's projection and
    positions as its class table. The scale of the projection has no effect: a norm follows it."""
    _pixeldit(name, parameter)
    if name == "y_pos_embedding":
        nn.init.normal_(parameter, std=0.02)


def _xpred(name: str, parameter: nn.Parameter) -> None:
    """Zero modulation and output as published (spec: xpred, 3), so that the first prediction is 0; two deviations.

    The scales of blocks are not added to 1, so their biases are 1 here; the published 0 lets hardly a gradient through
    at first. Tables of positions and registers are N(0, 0.02), as usual, in place of the published N(0, 1).
    """
    if "adaLN_modulation" in name or "mlp_cond" in name or name.startswith("final_layer.linear"):
        nn.init.zeros_(parameter)
    elif "norm" in name:
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    elif "pos_embed" in name or name == "class_registers":
        nn.init.normal_(parameter, std=0.02)
    if name.endswith(("adaLN_modulation.1.bias", "mlp_cond.1.bias")) and "blocks." in name:
        first = 1 if "adaLN" in name else 0  # shift, scale, gate of a patch block; scale, shift, gate of a pixel block
        parameter.data.unflatten(0, (6, -1))[[first, first + 3]] = 1.0


def _pixeldit2(name: str, parameter: nn.Parameter) -> None:
    """As published (spec: pixeldit2, 10); the time of the grounding's projection as that of the network."""
    _pixeldit(name.removeprefix("dino_conditioner.dino_proj."), parameter)
    if name == "in_context_posemb":
        nn.init.normal_(parameter, std=0.02)


def _pixelhdm(name: str, parameter: nn.Parameter) -> None:
    """As published (spec: pixelhdm, 5): Xavier for all matrices but the modulation of patch blocks; biases 0, except
    that gammas and alphas of patch blocks and alphas of pixel blocks start at 1."""
    if "norm" in name:
        nn.init.ones_(parameter)
    elif name.endswith(".adaln.proj.1.weight"):
        nn.init.trunc_normal_(parameter, std=0.02)
    elif parameter.ndim == 2:
        nn.init.xavier_uniform_(parameter)
    else:
        nn.init.zeros_(parameter)
    for end, rows in (".adaln.proj.1.bias", [0, 2, 3, 5]), (".adaln.param_gen.1.bias", [2, 5]):
        if name.endswith(end):
            parameter.data.unflatten(0, (6, -1))[rows] = 1.0


INITIALIZERS = {
    "pixeldit": _pixeldit,
    "pixeldit_t2i": _pixeldit_t2i,
    **dict.fromkeys(("xpred_dit", "xpred_mmdit", "xpred_pixeldit", "xpred_mmpixeldit"), _xpred),
    "pixelhdm": _pixelhdm,
    "pixeldit2": _pixeldit2,
}  # by family
