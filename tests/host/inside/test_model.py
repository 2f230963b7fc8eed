"""The MODEL is a first-class one: LoRA, saving, partial loading, precisions, wrappers."""

import torch
from class_model import guided, ksampler, pixeldit
from kit import close, core, labels, load_tiny, out_of, put, run, sampler_net
from safetensors.torch import save_file

MODULES = (
    "patch_blocks.0.attn.qkv",
    "patch_blocks.1.mlp.w1",
    "patch_blocks.1.adaLN_modulation.0",
    "pixel_blocks.0.attn.proj",
    "pixel_blocks.0.mlp.fc1",
    "pixel_blocks.0.adaLN_modulation.0",
    "pixel_blocks.0.compress_to_attn",
)


def lora_file(style):
    """A LoRA on patch and pixel blocks in one of ComfyUI's key styles, and what it adds to each weight."""
    weights = core().load_checkpoint(sampler_net()).network.state_dict()
    generator, tensors, deltas = torch.Generator().manual_seed(1), {}, {}
    for name in MODULES:
        rows, columns = weights[f"{name}.weight"].shape
        down = torch.randn(2, columns, generator=generator) * 0.1
        up = torch.randn(rows, 2, generator=generator) * 0.1
        if style == "ab":
            tensors |= {
                f"diffusion_model.{name}.lora_A.weight": down,
                f"diffusion_model.{name}.lora_B.weight": up,
            }
        else:
            flat = name.replace(".", "_")
            tensors |= {f"lora_unet_{flat}.lora_down.weight": down, f"lora_unet_{flat}.lora_up.weight": up}
        deltas[f"{name}.weight"] = up @ down
    folder = out_of("models") / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"lora-{style}.safetensors")
    import folder_paths

    if str(folder) not in folder_paths.folder_names_and_paths["loras"][0]:
        folder_paths.folder_names_and_paths["loras"][0].append(str(folder))
    folder_paths.filename_list_cache.clear()
    return f"lora-{style}.safetensors", deltas


def core_with(deltas, strength):
    model = core().load_checkpoint(sampler_net())
    with torch.no_grad():
        for name, delta in deltas.items():
            model.network.get_parameter(name).add_(strength * delta)
    return model


def apply(model, **options):
    """One network call of a MODEL, loaded as asked: -> what the host's apply_model gives."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    model.patch_model(torch.device("cpu"), **options)
    try:
        label = torch.tensor([3, 7])
        return x, model.model.apply_model(x, torch.full((2,), 0.6), pixeldit_class=label)
    finally:
        model.unpatch_model(torch.device("cpu"))


def test_lora_on_patch_and_pixel_blocks():
    for style in ("ab", "unet"):
        name, deltas = lora_file(style)
        model = run("LoraLoaderModelOnly", model=load_tiny(), lora_name=name, strength_model=0.8)[0]
        x, got = apply(model)
        v = core_with(deltas, 0.8).velocity(x, 0.4, torch.tensor([3, 7]))
        close(got, x + 0.6 * v, 1e-5)
        plain = core().load_checkpoint(sampler_net()).velocity(x, 0.4, torch.tensor([3, 7]))
        assert (v - plain).abs().max() > 1e-2, "the LoRA changes the result"


def test_partial_loading_equals_full_loading():
    name, _ = lora_file("ab")
    model = run("LoraLoaderModelOnly", model=load_tiny(), lora_name=name, strength_model=0.8)[0]
    _, whole = apply(model)
    _, part = apply(model.clone(), lowvram_model_memory=1500)
    close(part, whole, 1e-6)


def test_model_save_then_load_again():
    run("ModelSave", model=load_tiny(), filename_prefix="pixeldit/saved", prompt=None, extra_pnginfo=None)
    saved = sorted(out_of("output").rglob("saved*.safetensors"))[-1]
    again = run("PixelDiTLoader", checkpoint=put(saved, "saved.safetensors"), weight_dtype="fp32")[0]
    assert torch.equal(pixeldit(again), pixeldit(load_tiny()))
    info = core().inspect_checkpoint(saved)
    assert info.layout == "model.diffusion_model." and info.refused is None, str(info.refused)


def test_precisions():
    x, exact = apply(load_tiny())
    for name, tolerance in (("bf16", 0.05), ("fp16", 0.01), ("fp8_e4m3fn", 0.2), ("fp8_e5m2", 0.4)):
        model = load_tiny(weight_dtype=name)
        assert model.model.get_dtype() == core_dtype(name)
        error = ((apply(model)[1] - exact).norm() / (exact - x).norm()).item()
        assert error < tolerance, f"{name}: relative error {error:.3f}"
        assert torch.isfinite(pixeldit(model)).all()


def core_dtype(name):
    return {
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp8_e4m3fn": torch.float8_e4m3fn,
        "fp8_e5m2": torch.float8_e5m2,
    }[name]


def test_raw_and_ema_weights_differ():
    ema = load_tiny()
    assert torch.equal(pixeldit(load_tiny(weights="ema")), pixeldit(ema)), "auto is ema"
    raw = load_tiny(weights="raw")
    assert not torch.equal(pixeldit(raw), pixeldit(ema))


def test_wrappers_and_attention_overrides_reach_the_network():
    import comfy.patcher_extension

    hits = {"wrapper": 0, "attention": 0}

    def wrapper(executor, *arguments, **more):
        hits["wrapper"] += 1
        return executor(*arguments, **more)

    def override(function, *arguments, **more):
        hits["attention"] += 1
        return function(*arguments, **more)

    model = load_tiny()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", wrapper)
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    ksampler(guided(model), steps=2, positive=labels([3]))
    assert hits["wrapper"] == 2 and hits["attention"] == 2 * 3, str(hits)  # 2 patch blocks and 1 pixel block


def test_the_same_model_serves_two_branches():
    """Patches stay on their clone."""
    model = load_tiny()
    before = pixeldit(model)
    guided(model, 0.4, 0.5)
    run("ModelSamplingSD3", model=model, shift=5.0)
    assert torch.equal(pixeldit(model), before)


def test_block_lists_have_the_names_that_compile_nodes_look_for():
    network = load_tiny().model.diffusion_model
    assert len(network.patch_blocks) == 2 and len(network.pixel_blocks) == 1


def test_bundled_model_is_in_the_list_and_samples():
    options = core_list()
    assert "pixeldit-emoji-96.safetensors" in options, str(options)
    model = run("PixelDiTLoader", checkpoint="pixeldit-emoji-96.safetensors")[0]
    positive, null = run("PixelDiTClassLabel", model=model, class_name="0")
    picture = run(
        "PixelDiTSampler",
        model=model,
        positive=positive,
        negative=null,
        seed=1,
        settings="checkpoint default",
    )[0]
    assert tuple(picture.shape) == (1, 96, 96, 3) and picture.std() > 0.05


def core_list():
    from kit import node

    return node("PixelDiTLoader").GET_NODE_INFO_V1()["input"]["required"]["checkpoint"][1]["options"]
