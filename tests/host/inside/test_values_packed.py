"""ComfyUI's own PixelDiT with packed weights: nvfp4 and padded mxfp8, with a LoRA and saved."""

import json

import loras
import pytest
import tiny_t2i
import torch
from kit import close, core, has_native, run, texts
from safetensors.torch import load_file
from test_save import save
from test_save_memory import loaded_in_part

MODULE = "patch_blocks.0.attn.qkv_x"
GATE = "patch_blocks.0.mlp_x.w1"  # 85 rows of 32: mxfp8 pads them to 96


def packed(style, name):
    """The MODEL of ComfyUI's own loader for a file in which one matrix is packed, and that matrix as it was."""
    if not has_native():
        pytest.skip("this ComfyUI has no PixelDiT of its own (0.23 and newer have)")
    import comfy.model_patcher
    import comfy.supported_models
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    stored = load_file(tiny_t2i.file("for-packing.safetensors", "comfyui"))
    tensors = {key.removeprefix("core."): value.to(torch.bfloat16) for key, value in stored.items()}
    plain = tensors[f"{name}.weight"]
    made = QuantizedTensor.from_float(plain, QUANT_ALGOS[style]["comfy_tensor_layout"])
    tensors |= made.state_dict(f"{name}.weight")
    tensors[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps({"format": style}).encode()), dtype=torch.uint8)
    config = comfy.supported_models.PixelDiTT2I({"image_model": "pixeldit_t2i", **tiny_t2i.SIZES})
    config.quant_config = {"mixed_ops": True}
    config.set_inference_dtype(torch.bfloat16, torch.float32)
    base = config.get_model({}, "", device="cpu")
    missing, unexpected = base.diffusion_model.load_state_dict(tensors, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu), made.dequantize().float()


def with_lora(model, name):
    shapes = loras.shapes_of(tiny_t2i.core_model())
    ((module, (up, down)),) = loras.pairs(shapes, (name,)).items()
    file = loras.put("on-packed.safetensors", loras.peft({module: (up, down)}))
    return run("PixelDiTLoRA", model=model, lora_name=file, strength_model=1.0)[0], up @ down


def image(model):
    latent = {"samples": torch.zeros(1, 3, 32, 32)}
    options = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    conditions = {"positive": texts(seed=1), "negative": texts(seed=2)}
    return run("KSampler", model=model, latent_image=latent, **conditions, **options)[0]["samples"]


def test_packed_weights_are_saved_when_loaded_in_part(monkeypatch):
    """ComfyUI's own way to save them raises for those that are packed as integers."""
    if not has_native():
        pytest.skip("this ComfyUI has no PixelDiT of its own (0.23 and newer have)")
    from comfy.quant_ops import QUANT_ALGOS

    later = [("int8_tensorwise", MODULE)] if "int8_tensorwise" in QUANT_ALGOS else []
    for style, name in (*CASES, *later):
        model, _ = packed(style, name)
        for entry in (model, with_lora(model, name)[0]):
            whole = load_file(save(entry))
            with loaded_in_part(monkeypatch), torch.inference_mode():
                part = load_file(save(entry))
            assert part.keys() == whole.keys(), (style, name)
            assert all(torch.equal(part[key].float(), whole[key].float()) for key in whole), (style, name)


CASES = (("nvfp4", MODULE), ("nvfp4", GATE), ("mxfp8", MODULE), ("mxfp8", GATE), ("float8_e4m3fn", GATE))


def test_a_lora_is_applied_to_packed_weights():
    for style, name in CASES:
        model, _ = packed(style, name)
        patched, _ = with_lora(model, name)
        before, after = image(model), image(patched)
        assert torch.isfinite(after).all() and (before - after).abs().max() > 1e-3, (style, name)


def test_packed_weights_are_saved():
    for style, name in CASES:
        model, exact = packed(style, name)
        for layout in ("canonical", "comfyui"):
            found = core().load_checkpoint(save(model, layout=layout)).network.state_dict()
            close(found[f"{name}.weight"], exact, 0.02 * exact.abs().max().item())
        patched, difference = with_lora(model, name)
        found = core().load_checkpoint(save(patched)).network.state_dict()
        wanted = exact + difference
        share = {"nvfp4": 0.3, "mxfp8": 0.1, "float8_e4m3fn": 0.1}[style]  # the patched matrix is packed again
        assert (found[f"{name}.weight"] - wanted).norm() / wanted.norm() < share, (style, name)
        assert {tuple(value.shape) for value in found.values()} == {
            tuple(value.shape) for value in tiny_t2i.core_model().network.state_dict().values()
        }
