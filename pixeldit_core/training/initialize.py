"""Weights to start training from. Inference never needs this: the networks themselves do not initialize anything."""

import torch
from torch import nn


def initialize(network: nn.Module) -> None:
    """Fills every parameter of a class-conditional PixelDiT in place, from torch's global generator.

    As published: modulation and output start at zero, so every block starts as the identity and the predicted
    velocity as 0; Xavier for the patch embedding; N(0, 0.02) for time and class; the rest as torch does.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.reset_parameters()
    for name, parameter in network.named_parameters():
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
    bad = [name for name, parameter in network.named_parameters() if not torch.isfinite(parameter).all()]
    assert not bad, f"not initialized: {bad}"


def initialize_xpred(network: nn.Module) -> None:
    """The same for an x-prediction network, whose modulation starts as none.

    The scales of its blocks are not added to 1, so their biases are 1; the authors start them at 0, too, which lets
    hardly a gradient through at first.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d, nn.ConvTranspose2d)):
            module.reset_parameters()
    for name, parameter in network.named_parameters():
        if "adaLN_modulation" in name or "mlp_cond" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
        elif "norm" in name:
            nn.init.ones_(parameter)
        elif "pos_embed" in name or name == "class_registers":
            nn.init.normal_(parameter, std=0.02)
        if name.endswith(("adaLN_modulation.1.bias", "mlp_cond.1.bias")) and "blocks." in name:
            first = (
                1 if "adaLN" in name else 0
            )  # shift, scale, gate of a patch block; scale, shift, gate of a pixel block
            parameter.data.unflatten(0, (6, -1))[[first, first + 3]] = 1.0
    bad = [name for name, parameter in network.named_parameters() if not torch.isfinite(parameter).all()]
    assert not bad, f"not initialized: {bad}"
