"""The other families as MODELs, through the nodes that serve all."""

import re

import pytest
import torch
from kit import (
    close,
    core,
    golden,
    labels,
    load,
    module,
    out_of,
    record_calls,
    run,
)
from other_families import (
    GRAY,
    HDM,
    XPRED,
    checkpoint,
    core_image,
    pixelhdm,
    sampler_inputs,
    text,
    unit,
    within,
    xpred,
)


def test_sampler_node_gives_the_cores_images_in_the_default_size():
    for name in XPRED:
        model = xpred(name)
        spec = module("nodes.host.spec").find_spec(model)
        label = run("PixelDiTClassLabel", model=model, classes="0, 1, 2")
        for convention in ("standard", "reference"):
            inputs = sampler_inputs(model, spec, width=0, height=0, positive=label[0], convention=convention)
            picture = run("PixelDiTSampler", **inputs)[0]
            core_model, x = core_image(
                checkpoint(name),
                lambda model: core().class_condition(model, [0, 1, 2]),
                None,
                unit(3, spec.params, spec.default_size),
                steps=5,
                solver="ab2",
                cfg=2.0,
                cfg_interval=(0.1, 0.9),
                convention=convention,
            )
            within(picture, core_model, x)


def test_other_sizes_than_the_trained_one():
    for name, size in ((GRAY, (16, 24)), ("dit-r1", (24, 20)), ("pixeldit-r1", (20, 16))):
        model = xpred(name)
        spec = module("nodes.host.spec").find_spec(model)
        inputs = sampler_inputs(
            model, spec, positive=labels([1], spec.params.num_classes), height=size[0], width=size[1], batch_size=2
        )
        picture = run("PixelDiTSampler", **inputs)[0]
        core_model, x = core_image(
            checkpoint(name),
            lambda model: core().class_condition(model, [1]),
            None,
            unit(2, spec.params, size),
            steps=5,
            solver="ab2",
            cfg=2.0,
            cfg_interval=(0.1, 0.9),
        )
        within(picture, core_model, x)


def test_frames_of_the_process():
    model = xpred(GRAY)
    spec = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, classes="0, 1, 2, 3, 4")
    inputs = sampler_inputs(model, spec, positive=label[0], batch_size=5, steps=8)
    plain = run("PixelDiTSampler", **inputs)
    assert torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2]), "without frames, the pictures"
    made, states, estimates, _ = run("PixelDiTSampler", **inputs, trajectory_frames=5)
    assert torch.equal(made, plain[0]), "frames change the picture"
    assert states.shape == estimates.shape == (5, 24, 36, 3), f"{tuple(states.shape)}"  # five pictures as 3 + 2
    first = unit(5, spec.params, (12, 12))
    grid = [
        states[:, row * 12 : row * 12 + 12, column * 12 : column * 12 + 12] for row in (0, 1) for column in (0, 1, 2)
    ]
    for index in range(5):
        close(grid[index][0][..., 0], ((first[index, 0] + 1) / 2).clamp(0, 1), 0.51 / 255)
        assert torch.equal(grid[index][-1], made[index]), "the last frame is the picture"
    assert not grid[5].any(), "an empty place is black"
    assert torch.equal(states[-1], estimates[-1])
    close(estimates[0][:12, :12, 0], _first_estimate(first), 0.51 / 255)
    assert run("PixelDiTSampler", **inputs, trajectory_frames=1)[1].shape[0] == 1, "a single frame is the picture"
    every = run("PixelDiTSampler", **inputs, trajectory_frames=100)[1]
    assert len(every) == 9, "no more frames than states"
    assert torch.equal(every[0], states[0]) and torch.equal(every[4], states[2])


def _first_estimate(noise):
    model = core().load_checkpoint(checkpoint(GRAY))
    v = model.velocity(noise[:1], 0.0, core().class_condition(model, [0]))
    return (((noise[:1] + v)[0, 0] + 1) / 2).clamp(0, 1)


def test_interval_rows_and_both_conventions():
    model, calls = record_calls(xpred(GRAY))
    spec = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, classes="1")
    inputs = sampler_inputs(
        model, spec, positive=label[0], batch_size=1, steps=10, solver="euler", timeshift=2.0, cfg_interval_end=1.0
    )
    run("PixelDiTSampler", **inputs)
    standard = [len(call["x"]) for call in calls]
    calls.clear()
    run("PixelDiTSampler", **inputs, convention="reference")
    reference = [len(call["x"]) for call in calls]
    assert standard == [1, 1] + [2] * 8, f"{standard}"  # shifted times 0, 0.053, 0.111 ...
    assert reference == [1] + [2] * 9, f"{reference}"  # unshifted ones, the limits included


def test_a_lora_and_a_saved_file_of_each_family():
    import folder_paths
    from safetensors.torch import save_file

    folder = out_of("models") / "loras"
    folder.mkdir(exist_ok=True)
    folder_paths.folder_names_and_paths["loras"][0].insert(0, str(folder))
    cases = (
        (xpred("pixeldit-r1"), "dit_blocks.0.attn.qkv.weight", "dit_blocks.0.attn.qkv"),
        (pixelhdm(), "patch_blocks.0.attention.qkv_proj.q_proj.weight", "patch_blocks.0.attention.q_proj"),
    )
    for model, key, named in cases:
        weight = model.model.diffusion_model.state_dict()[key]
        up, down = torch.randn(weight.shape[0], 2), torch.randn(2, weight.shape[1])
        name = f"{model.model.pixeldit.family.name}-lora.safetensors"
        save_file({f"transformer.{named}.lora_A.weight": down, f"transformer.{named}.lora_B.weight": up}, folder / name)
        folder_paths.filename_list_cache.clear()
        patched = run("PixelDiTLoRA", model=model, lora_name=name, strength_model=0.5)[0]
        run("PixelDiTSaveModel", model=patched, filename_prefix=f"families/{name[:-12]}")
        saved = sorted((out_of("output") / "families").glob(f"{name[:-12]}*"))[-1]
        again = core().load_checkpoint(saved)
        close(again.network.state_dict()[key], weight + 0.5 * up @ down, 1e-4)
        assert again.params == model.model.pixeldit.params and again.family.name == model.model.pixeldit.family.name


def test_comfyui_reserves_the_memory_of_a_pixel_pathway():
    pc, loader = core(), module("nodes.host.load")
    preset = pc.VARIANTS["mmpixeldit-tiny/4-cifar10"]
    model = pc.build_model(preset.family, preset.params, device="cpu")
    for parameter in model.network.parameters():
        parameter.data.zero_()
    out_of("files").mkdir(exist_ok=True)
    large = loader.load_model(str(pc.save_checkpoint(model, out_of("files") / "large.safetensors")))
    usual, needed = (entry.model.memory_required((2, 3, 256, 256)) for entry in (pixelhdm(), large))
    bytes_each = large.model.get_dtype().itemsize
    assert needed / bytes_each > 1.6 * usual / 4, f"{needed} of {usual}"


def test_mistakes_are_reported():
    stored = torch.load(checkpoint("pixeldit-r1"), weights_only=True)
    stored["config"]["model"] |= {"dit_dim": 4096}
    out_of("files").mkdir(exist_ok=True)
    torch.save(stored, out_of("files") / "contradicts.pt")
    with pytest.raises(ValueError, match="the config inside of it says dim = 4096"):
        load(out_of("files") / "contradicts.pt")
    model, spec = pixelhdm(), module("nodes.host.spec").find_spec(pixelhdm())
    settings = sampler_inputs(model, spec, width=16, height=12, batch_size=1, cfg=1.0)
    with pytest.raises(ValueError, match="31 wide"):
        run("PixelDiTSampler", positive=[[torch.zeros(1, 4, 31), {}]], **settings)
    with pytest.raises(ValueError, match=re.escape("Load Qwen3-0.6B")):
        run("PixelDiTSampler", positive=labels([1]), **settings)
    mask = {"attention_mask": torch.ones(1, 3)}
    with pytest.raises(ValueError, match="its mask 3"):
        run("PixelDiTSampler", positive=[[torch.zeros(1, 4, 32), mask]], **settings)
    with pytest.raises(ValueError, match="has no classes"):
        run("PixelDiTClassLabel", model=model, class_name="3")
    gray = xpred(GRAY)
    spec = module("nodes.host.spec").find_spec(gray)
    settings = sampler_inputs(gray, spec, positive=[[torch.zeros(1, 4, 32), {}]])
    with pytest.raises(ValueError, match="is a class-conditional model"):
        run("PixelDiTSampler", **settings)
    settings = sampler_inputs(gray, spec, positive=labels([1]), width=15)
    with pytest.raises(ValueError, match="nearest that does"):
        run("PixelDiTSampler", **settings)
    settings = sampler_inputs(gray, spec, positive=labels([1]), convention="wrong")
    with pytest.raises(ValueError, match='convention "wrong" is not known'):
        run("PixelDiTSampler", **settings)


def test_half_precision_of_every_family():
    for model in (load(checkpoint(GRAY), f"{GRAY}.pt"), pixelhdm()):
        name = model.model.pixeldit.source
        for dtype in ("bf16", "fp16", "fp8_e4m3fn"):
            half = run("PixelDiTLoader", checkpoint=name, weight_dtype=dtype)[0]
            spec = half.model.pixeldit
            if spec.family.condition == "class":
                positive = labels([1])
            else:
                positive = text(golden(HDM, "pixelhdm")[1], rows=slice(1))
            size = {"width": 16, "height": 12} if spec.family.name == "pixelhdm" else {}
            inputs = sampler_inputs(half, spec, positive=positive, batch_size=1, cfg=1.0, **size)
            exact = run("PixelDiTSampler", **{**inputs, "model": model})[0]
            rough = run("PixelDiTSampler", **inputs)[0]
            limit = 0.2 if dtype.startswith("fp8") else 0.05
            assert (exact - rough).abs().mean() < limit, f"{name} {dtype}: {(exact - rough).abs().mean()}"


def test_other_attention_functions_of_comfyui_take_the_mask():
    """Split and quadratic attention add their mask to the scores, where PyTorch's takes booleans."""
    import comfy.ldm.modules.attention as host

    attention = module("nodes.host.attention")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 8, generator=generator) for _ in range(3))
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[0, ..., 5:] = False
    expected = attention.attention(q, k, v, mask)
    before = attention.optimized_attention, attention.args.use_quad_cross_attention
    try:
        attention.args.use_quad_cross_attention = True
        for name in ("attention_basic", "attention_split", "attention_sub_quad", "attention_pytorch"):
            attention.optimized_attention = getattr(host, name)
            close(attention.attention(q, k, v, mask), expected, 1e-5)
    finally:
        attention.optimized_attention, attention.args.use_quad_cross_attention = before
