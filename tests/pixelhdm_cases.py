"""Golden cases of PixelHDM: params and weights, of a file of any layout."""

import dataclasses

import torch

from pixeldit_core import PixelHDM, PixelHDMParams


def find(golden, name):
    return golden(name, "pixelhdm")


def params_of(config):
    known = {field.name for field in dataclasses.fields(PixelHDMParams)}
    return PixelHDMParams(**{key: value for key, value in config.items() if key in known})


def is_alias(key):
    """Attention's projections under their second name, which files hold too."""
    path, _, name = key.rpartition("attention.")
    return bool(path) and name.split(".")[0] in ("q_proj", "k_proj", "v_proj", "out_proj", "gate_proj")


def canonical(tensors):
    return {key: value for key, value in tensors.items() if not is_alias(key) and not key.startswith("_dino_")}


def weights_of(stored, ema=True):
    """The weights of a file of any layout."""
    if ema and "ema" in stored:
        return canonical(stored["ema"].get("shadow", stored["ema"]))
    return canonical(stored.get("model", stored))


def load(case, ema=True, **kit):
    weights = weights_of(torch.load(case.checkpoint or case.folder / "checkpoint.pt", weights_only=True), ema)
    network = PixelHDM(params_of(case.case["config"]), **kit)
    network.load_state_dict({key: value.to(kit.get("dtype")) for key, value in weights.items()})
    return network.eval().requires_grad_(False)
