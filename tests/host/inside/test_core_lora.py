"""The LoRA files that the core's training writes, in ComfyUI's own LoRA loader and in ours."""

import importlib
import logging

import tiny_t2i
import torch
from kit import close, core, load_tiny, out_of, run
from loras import put
from other_families import GRAY, pixelhdm, xpred
from pixeldit2 import pixeldit2
from safetensors.torch import load_file

ALPHA, RANK = 3.0, 2
MODELS = {
    "class": load_tiny,
    "text": tiny_t2i.ours,
    "xpred": lambda: xpred(GRAY),
    "pixelhdm": pixelhdm,
    "pixeldit2": pixeldit2,
}


def weights(model):
    """What the network would compute with."""
    model.patch_model(torch.device("cpu"))
    try:
        return {name: value.clone() for name, value in model.model.diffusion_model.state_dict().items()}
    finally:
        model.unpatch_model(torch.device("cpu"))


def trained(network):
    """A LoRA on all matrices of a network's blocks as training writes it: its name, and what it adds by weight."""
    training = importlib.import_module(f"{core().__name__}.training.lora")
    config = importlib.import_module(f"{core().__name__}.training.config").LoraConfig(rank=RANK, alpha=ALPHA)
    generator, tensors, added = torch.Generator().manual_seed(3), {}, {}
    for name in training.target_names(network):
        rows, columns = network.get_submodule(name).weight.shape
        up, down = (0.3 * torch.randn(*shape, generator=generator) for shape in ((rows, RANK), (RANK, columns)))
        tensors |= {f"{name}.lora_A.default.weight": down, f"{name}.lora_B.default.weight": up}
        added[f"{name}.weight"] = ALPHA / RANK * up @ down
    path = training.write_lora(tensors, out_of("files") / "trained.safetensors", config, {})
    return put("trained.safetensors", load_file(path)), added


def test_every_weight_is_changed_as_in_training(caplog):
    for family, build in MODELS.items():
        model = build()
        name, added = trained(model.model.diffusion_model)
        before = weights(model)
        for loader in ("LoraLoaderModelOnly", "PixelDiTLoRA"):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                after = weights(run(loader, model=model, lora_name=name, strength_model=0.5)[0])
            assert "not loaded" not in caplog.text, (family, loader)
            changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
            assert changed == set(added), (family, loader)
            for key, difference in added.items():
                close(after[key], before[key] + 0.5 * difference, 1e-5)
