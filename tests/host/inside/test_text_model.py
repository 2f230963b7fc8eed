"""Text-to-image: loading, precisions, LoRA, saving, notes and errors."""

import pytest
import tiny_t2i
import torch
from kit import (
    close,
    empty,
    golden_folder,
    load,
    put,
    run,
    texts,
)
from text_model import apply, ksampler, sampler


def test_loader_detects_the_family_and_its_settings():
    model = tiny_t2i.ours()
    spec = model.model.pixeldit
    assert spec.family.name == "pixeldit_t2i" and spec.params.txt_embed_dim == 20
    assert model.get_model_object("model_sampling").shift == 4.0, "KSampler's shift is the published one at 1024"
    from kit import module

    text = module("nodes.loader").describe(spec, model.model.loaded)
    assert "at 1024 x 1024: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 4" in text, text
    assert "at 512 x 512: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 3" in text, text


def test_settings_and_notes():
    from kit import module

    render, request = module("nodes.host.render").render, module("nodes.host.request").Request
    model = tiny_t2i.ours()

    def used(settings="custom", size=(32, 32), positive=None, **options):
        values = {
            "seed": 5, "steps": 2, "solver": "flow_dpmpp_2m", "cfg": 1.0, "timeshift": 0.0, "cfg_interval_start": 0.0,
            "cfg_interval_end": 1.0, "batch_size": 1, "denoise": 1.0, "height": size[0], "width": size[1],
        }  # fmt: skip
        values |= {"settings": settings, **options}
        return render(model, positive or texts(), texts(seed=2), None, None, request(**values)).text

    assert "far from every size that the model was trained on" in used(), used()
    assert "the nearest is " in used(size=(208, 208)), used(size=(208, 208))
    text = used("t2i-1024-fast")
    assert "25 steps flow_dpmpp_2m, cfg 2.75, timeshift 4, interval 0 to 1, 32 x 32" in text, text
    assert "these settings are for 1024 x 1024" in text, text
    assert "are for another kind of model" in used("imagenet256-epoch320")
    near = used(size=(512, 512), steps=2)
    assert "note" not in near and "timeshift 3" in near, near
    with pytest.raises(ValueError, match="at least 2"):
        used(steps=1)
    assert "the text has 20 tokens, the model reads the first 12" in used(positive=texts(20)), "a cut is noted"


def test_lora_saving_and_partial_loading():
    names = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_y.w1", "pixel_blocks.1.adaLN_modulation.0")
    weights = tiny_t2i.core_model().network.state_dict()
    generator, tensors = torch.Generator().manual_seed(1), {}
    changed = tiny_t2i.core_model()
    for name in names:
        rows, columns = weights[f"{name}.weight"].shape
        down, up = torch.randn(2, columns, generator=generator) * 0.1, torch.randn(rows, 2, generator=generator) * 0.1
        tensors |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
        changed.network.get_parameter(f"{name}.weight").data.add_(0.8 * up @ down)
    model = with_lora(tensors)
    x, got = apply(model)
    close(got, x + 0.6 * changed.velocity(x, 0.4, texts(rows=2)[0][0]), 1e-5)
    _, part = apply(model.clone(), lowvram_model_memory=1500)
    close(part, got, 1e-6)
    from kit import out_of

    run("ModelSave", model=tiny_t2i.ours(), filename_prefix="pixeldit/t2i", prompt=None, extra_pnginfo=None)
    again = load(sorted(out_of("output").rglob("t2i*.safetensors"))[-1], "t2i-again.safetensors")
    assert torch.equal(apply(again)[1], apply(tiny_t2i.ours())[1])


def with_lora(tensors):
    import folder_paths
    from kit import out_of
    from safetensors.torch import save_file

    folder = out_of("models") / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "t2i-lora.safetensors")
    if str(folder) not in folder_paths.folder_names_and_paths["loras"][0]:
        folder_paths.folder_names_and_paths["loras"][0].append(str(folder))
    folder_paths.filename_list_cache.clear()
    inputs = {"model": tiny_t2i.ours(), "lora_name": "t2i-lora.safetensors", "strength_model": 0.8}
    return run("LoraLoaderModelOnly", **inputs)[0]


def test_precisions():
    x, exact = apply(tiny_t2i.ours())
    path = put(tiny_t2i.file(), "precise.safetensors")
    for name, tolerance in (("bf16", 0.05), ("fp16", 0.01), ("fp8_e4m3fn", 0.2)):
        model = run("PixelDiTLoader", checkpoint=path, weight_dtype=name)[0]
        error = ((apply(model)[1] - exact).norm() / (exact - x).norm()).item()
        assert error < tolerance, f"{name}: relative error {error:.3f}"


def test_wrong_conditionings_are_reported():
    from kit import labels, load_tiny

    model = tiny_t2i.ours()
    with pytest.raises(ValueError, match="contains a class label"):
        sampler(model, positive=labels([3]))
    with pytest.raises(ValueError, match="PixelDiT Text Prompt"):
        ksampler(model, negative=labels([3]))
    with pytest.raises(ValueError, match="is 4096 wide"):
        ksampler(model, positive=texts(width=4096))
    with pytest.raises(ValueError, match="Load gemma_2_2b_it_elm"):
        sampler(model, positive=texts(width=16))
    with pytest.raises(ValueError, match="PixelDiT Class Label"):
        run("KSampler", **class_inputs(load_tiny()))
    with pytest.raises(ValueError, match="has no classes"):
        run("PixelDiTClassLabel", model=model, class_name="3")
    with pytest.raises(ValueError, match="no last_step"):
        run("PixelDiTScheduler", model=model, steps=5, last_step=0.1)
    assert torch.isfinite(sampler(model)).all(), "the next run works"


def class_inputs(model):
    return {
        "model": model, "seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple",
        "positive": texts(), "negative": texts(), "latent_image": empty((1, 3, 16, 16)), "denoise": 1.0,
    }  # fmt: skip


def test_files_of_other_families_are_refused_by_name():
    for name in ("comfy-pid-v1", "comfy-pid-v1_5"):
        path = next(golden_folder(name, "peers").glob("checkpoint.*"))
        with pytest.raises(ValueError, match="Use ComfyUI's own PiD nodes"):
            load(path, f"{name}{path.suffix}")
