"""A LoRA with the keys of `python -m pixeldit_core train`: onto our MODELs, by our node and by ComfyUI's own."""

import tiny_t2i
import torch
from class_model import ksampler
from kit import close, core, has_native, load, load_tiny, out_of, run, sampler_net
from loras import pairs, put
from text_model import apply

ALPHA = 3.0  # of rank 2: the scale is 1.5


def trained(found):
    """Pairs as pixeldit_core/training/lora.py writes them, which needs packages that ComfyUI does not have."""
    tensors = {}
    for name, (up, down) in found.items():
        start = f"diffusion_model.{name}"
        tensors |= {f"{start}.lora_B.weight": up, f"{start}.lora_A.weight": down}
        tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    return tensors


def matrices(network):
    """All matrices of the blocks: what a run trains without targets."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    names = [key.removesuffix(".weight") for key, shape in shapes.items() if "blocks." in key and len(shape) == 2]
    found = pairs(shapes, names)
    return {name: (0.2 * up, down) for name, (up, down) in found.items()}


def merged(model, name):
    """A model of the core with the LoRA in its weights, as a MODEL."""
    assert core().apply_lora(model, out_of("models") / "loras" / name) > 0
    return load(core().save_checkpoint(model, out_of("files") / f"merged-{name}"))


def test_a_class_model():
    model, base = load_tiny(), core().load_checkpoint(sampler_net())
    found = matrices(base.network)
    name = put("trained-class.safetensors", trained(found))
    expected = ksampler(merged(base, name))
    for loader in ("PixelDiTLoRA", "LoraLoaderModelOnly"):
        patched = run(loader, model=model, lora_name=name, strength_model=1.0)[0]
        assert len(patched.patches) == len(found), loader
        close(ksampler(patched), expected, 1e-4)
    assert (ksampler(model) - expected).abs().max() > 1e-2
    half = run("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=0.5)[0]
    close(ksampler(half), ksampler(run("PixelDiTLoRA", model=model, lora_name=name, strength_model=0.5)[0]), 1e-5)


def test_a_text_model():
    base = tiny_t2i.core_model()
    found = matrices(base.network)
    name = put("trained-text.safetensors", trained(found))
    expected = apply(merged(base, name))[1]
    for loader in ("PixelDiTLoRA", "LoraLoaderModelOnly"):
        patched = run(loader, model=tiny_t2i.ours(), lora_name=name, strength_model=1.0)[0]
        assert len(patched.patches) == len(found), loader
        close(apply(patched)[1], expected, 1e-4)


def test_comfyuis_own_text_network():
    if not has_native():
        return
    found = matrices(tiny_t2i.core_model().network)
    name = put("trained-native.safetensors", trained(found))
    expected = apply(merged(tiny_t2i.core_model(), name))[1]
    close(apply(run("PixelDiTLoRA", model=tiny_t2i.native(), lora_name=name)[0])[1], expected, 1e-4)
    stock = run("LoraLoaderModelOnly", model=tiny_t2i.native(), lora_name=name, strength_model=1.0)[0]
    missed = [key for key in found if f"diffusion_model.{key}.weight" not in stock.patches]
    assert all("pixel_blocks" in key and "adaLN_modulation" in key for key in missed), missed  # halves there
