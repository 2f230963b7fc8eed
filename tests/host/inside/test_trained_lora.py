"""A LoRA of all matrices, with the keys that training writes, onto ComfyUI's own text-to-image network."""

import pytest
import tiny_t2i
import torch
from kit import close, core, has_native, load, out_of, run
from loras import pairs, put, shapes_of
from text_model import apply

ALPHA = 3.0  # of rank 2: the scale is 1.5


def trained(name):
    """The file, and the modules in it."""
    shapes = shapes_of(tiny_t2i.core_model())
    names = [key.removesuffix(".weight") for key, shape in shapes.items() if "blocks." in key and len(shape) == 2]
    tensors = {}
    for module, (up, down) in pairs(shapes, names).items():
        start = f"diffusion_model.{module}"
        tensors |= {f"{start}.lora_B.weight": 0.2 * up, f"{start}.lora_A.weight": down}
        tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    return put(name, tensors), names


def test_our_node_applies_all_of_it_and_comfyuis_all_but_the_halves():
    if not has_native():
        pytest.skip("this ComfyUI does not know PixelDiT")
    name, modules = trained("trained-native.safetensors")
    model = tiny_t2i.core_model()
    assert core().apply_lora(model, out_of("models") / "loras" / name) == len(modules)
    expected = apply(load(core().save_checkpoint(model, out_of("files") / "merged-native.safetensors")))[1]
    native = tiny_t2i.native()
    close(apply(run("PixelDiTLoRA", model=native, lora_name=name)[0])[1], expected, 1e-4)
    stock = run("LoraLoaderModelOnly", model=native, lora_name=name, strength_model=1.0)[0]
    missed = {module for module in modules if f"diffusion_model.{module}.weight" not in stock.patches}
    assert missed == {module for module in modules if module.startswith("pixel_blocks") and "adaLN" in module}
