"""PixelDiT Save Model in every memory mode: the same file, whether or not the weights lie on the device."""

import contextlib

import loras
import pytest
import tiny_t2i
import torch
from kit import close, core, golden_folder, has_native, keeps_scaled, load, load_tiny, put, run
from pixeldit2 import pixeldit2
from safetensors.torch import load_file
from test_save import save


@contextlib.contextmanager
def loaded_in_part(monkeypatch):
    """As with --novram, or on a full GPU: ComfyUI keeps every layer away and patches it when it is called."""
    import comfy.model_management as mm

    load_whole = mm.LoadedModel.model_load
    mm.unload_all_models()
    with monkeypatch.context() as patch:
        patch.setattr(
            mm.LoadedModel, "model_load", lambda self, memory=0, force_patch_weights=False: load_whole(
                self, 0.1, force_patch_weights)
        )  # fmt: skip
        yield
    mm.unload_all_models()


def with_lora(model, paths, name="memory.safetensors"):
    """The MODEL with a LoRA, and the differences that it makes to its weights."""
    shapes = {key: tuple(value.shape) for key, value in model.model.diffusion_model.state_dict().items()}
    found = loras.pairs(shapes, paths)
    patched = run("PixelDiTLoRA", model=model, lora_name=loras.put(name, loras.peft(found)), strength_model=0.5)[0]
    return patched, {f"{path}.weight": 0.5 * up @ down for path, (up, down) in found.items()}


MODELS = {
    "class": (load_tiny, ("patch_blocks.0.attn.proj", "pixel_blocks.0.mlp.fc1")),
    "text": (tiny_t2i.ours, ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.attn.proj_y")),
    "pixeldit2": (pixeldit2, ("patch_blocks.0.attn.qkv", "dino_conditioner.dino_proj.input_proj")),
    "native": (tiny_t2i.native, ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.attn.proj_y")),
}


def test_loras_are_in_the_file(monkeypatch):
    for kind, (make, paths) in MODELS.items():
        if kind != "native" or has_native():
            for layout in ("canonical", "comfyui"):
                check_lora(monkeypatch, make(), paths, layout)


def check_lora(monkeypatch, model, paths, layout):
    before = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    patched, differences = with_lora(model, paths)
    whole = load_file(save(patched, layout=layout))
    with loaded_in_part(monkeypatch):
        part, plain = (load_file(save(patched, layout=layout, merge_loras=merge)) for merge in (True, False))
    assert part.keys() == whole.keys() and all(torch.equal(part[key], whole[key]) for key in whole)
    for name, difference in differences.items():
        key = next(key for key in part if key.endswith(name))
        close(part[key], before[name] + difference, 1e-5)
        close(plain[key], before[name], 0.0)


def test_merged_models_are_in_the_file(monkeypatch):
    import nodes as host

    if "ModelMergeSimple" not in host.NODE_CLASS_MAPPINGS:
        pytest.skip("no merge node loaded")
    one, two = load_tiny(), with_lora(load_tiny(), MODELS["class"][1])[0]
    merged = run("ModelMergeSimple", model1=one, model2=two, ratio=0.25)[0]
    whole = load_file(save(merged))
    with loaded_in_part(monkeypatch):
        part = load_file(save(merged))
    assert all(torch.equal(part[key], whole[key]) for key in whole)
    base = one.model.diffusion_model.state_dict()
    assert not all(torch.equal(part[key], base[key]) for key in base)


def test_quantized_models(monkeypatch):
    for style in ("fp8-scaled", "fp8-old", "mxfp8", "int8"):
        check_quantized(monkeypatch, golden_folder(f"comfy-t2i-{style}", "peers") / "checkpoint.safetensors", style)


def check_quantized(monkeypatch, path, style):
    model = run("PixelDiTLoader", checkpoint=put(path, f"memory-{style}.safetensors"), weight_dtype="default")[0]
    key = "patch_blocks.0.attn.qkv_x.weight"
    kept = style.startswith("fp8")
    whole = save(model)
    with loaded_in_part(monkeypatch):
        part = save(model)
    first, second = load_file(whole), load_file(part)
    assert first.keys() == second.keys() and all(
        torch.equal(first[name].float(), second[name].float()) for name in first
    )
    assert (first[key].dtype == torch.float8_e4m3fn) == kept, "scaled float8 stays what it is"
    assert whole.stat().st_size < 1.1 * path.stat().st_size or not kept
    exact = core().load_checkpoint(path).network.state_dict()
    saved = core().load_checkpoint(whole).network.state_dict()
    for name, weight in exact.items():
        close(saved[name], weight, 0.0 if kept and name == key else 0.02 * weight.abs().max().item() + 1e-6)


def test_quantized_models_are_saved_for_every_reader():
    for style in ("fp8-scaled", "fp8-metadata", "fp8-old", "fp8-plain", "mxfp8", "int8"):
        path = golden_folder(f"comfy-t2i-{style}", "peers") / "checkpoint.safetensors"
        exact = core().load_checkpoint(path).network.state_dict()
        model = run("PixelDiTLoader", checkpoint=put(path, f"readers-{style}.safetensors"), weight_dtype="default")[0]
        for layout in ("canonical", "comfyui"):
            check_readers(
                save(model, layout=layout), exact, 0.0 if style.startswith("fp8") and keeps_scaled() else 1e-6
            )
            check_readers(save(model, layout=layout, weight_dtype="fp32"), exact, 0.01)


def check_readers(path, exact, tolerance):
    """A file as the core and our node read it, key by key."""
    state = core().load_checkpoint(path).network.state_dict()
    assert state.keys() == exact.keys()
    for key, weight in exact.items():
        close(state[key], weight, tolerance * weight.abs().max().item())
    for key, weight in load(path).model.diffusion_model.state_dict().items():
        close(weight, state[key], 0.0)


def test_a_lora_on_scaled_float8(monkeypatch):
    path = golden_folder("comfy-t2i-fp8-scaled", "peers") / "checkpoint.safetensors"
    model = run("PixelDiTLoader", checkpoint=put(path, "memory-fp8.safetensors"), weight_dtype="default")[0]
    exact = core().load_checkpoint(path).network.state_dict()
    shapes = {key: tuple(value.shape) for key, value in exact.items()}
    found = loras.pairs(shapes, ("patch_blocks.0.attn.qkv_x",))
    name = loras.put("memory-fp8-lora.safetensors", loras.peft(found))
    patched = run("PixelDiTLoRA", model=model, lora_name=name, strength_model=1.0)[0]
    ((module, (up, down)),) = found.items()
    with loaded_in_part(monkeypatch):
        part = core().load_checkpoint(save(patched)).network.state_dict()
    whole = core().load_checkpoint(save(patched)).network.state_dict()
    expected = exact[f"{module}.weight"] + up @ down
    scale = expected.abs().max().item()
    for state in (part, whole):
        close(state[f"{module}.weight"], expected, 0.07 * scale)  # what a float8 with one scale can hold
