"""The other families as MODELs: x-prediction networks and PixelHDM, through the nodes that serve every family."""

import torch
from kit import (
    close,
    core,
    empty,
    golden,
    golden_folder,
    labels,
    load,
    module,
    out_of,
    raises,
    record_calls,
    require,
    run,
)

XPRED = {
    "dit-r1": "x-prediction DiT",
    "dit-r1-layernorm-noape": "x-prediction DiT",
    "dit-r2": "x-prediction DiT",
    "mmdit-r1": "x-prediction MM-DiT",
    "mmdit-r2": "x-prediction MM-DiT",
    "pixeldit-r1": "x-prediction PixelDiT",
    "pixeldit-r2": "x-prediction PixelDiT",
    "mmpixeldit-r1": "x-prediction MM-PixelDiT",
    "mmpixeldit-r2": "x-prediction MM-PixelDiT",
}
GREY = "mmpixeldit-r1"  # 12 x 12, one channel
HDM = "10_sampler_euler_cfg"


def checkpoint(name, system="xpred"):
    return golden_folder(name, system) / "checkpoint.pt"


def xpred(name, **options):
    return load(checkpoint(name), f"{name}.pt", **options)


def pixelhdm(name=HDM, **options):
    return load(checkpoint(name, "pixelhdm"), f"{name}.pt", **options)


def text(inputs, prefix="", rows=slice(None)):
    """CONDITIONING as PixelDiT Text Prompt gives it for PixelHDM."""
    states, mask, pooled = (
        inputs[f"{prefix}{name}"][rows] for name in ("text_embed", "text_mask", "pooled_text_embed")
    )
    return [[states, {"attention_mask": mask, "pooled_output": pooled}]]


def sampled(model, positive, negative, noise, convention="standard", **settings):
    """What PixelDiT Sampler does, from given noise, in the model's range."""
    sampling, times = module("nodes.host.sampling"), module("nodes.host.times")
    settings, spec = core().SamplingSettings(**settings), model.model.pixeldit
    convention = times.find_convention(spec, convention)
    plan = sampling.Plan(settings, convention, times.make_times(spec, convention, settings.steps, settings.timeshift))
    start = sampling.Start(torch.zeros_like(noise), noise / (1 - plan.times[0]), seed=0)
    return model.model.process_latent_in(sampling.sample(model, positive, negative, start, plan))


def check_published_walks_of_the_x_prediction_networks():
    for name, title in XPRED.items():
        case, inputs, outputs = golden(name, "xpred")
        if case["dataset_config"]["normalize_mean"][0] != 0.5:
            continue  # an empty latent is not zero in its range, and only our sampler from an image starts elsewhere
        model = xpred(name)
        require(module("nodes.host.spec").find_spec(model).family.title == title)
        for test in case["tests"]:
            if test["kind"] != "sample" or test["inputs"].get("y") is None or test["weights"] != "ema":
                continue
            told, noise = test["settings"], inputs[test["inputs"]["noise"]]
            x = sampled(
                model,
                labels(inputs[test["inputs"]["y"]].tolist()),
                labels([case["dataset_config"]["num_classes"]]),
                noise,
                steps=told["steps"],
                solver="euler",
                cfg=told["cfg_scale"],
                cfg_interval=tuple(told["cfg_interval"]),
                timeshift=told["shift"],
                convention="reference",
            )
            expected = outputs[test["outputs"].get("final", test["outputs"].get("traj"))]
            close(x, expected[-1] if expected.ndim == 5 else expected, 1e-4)


def check_published_walks_of_pixelhdm():
    for name, solver in (("10_sampler_euler_cfg", "euler"), ("11_sampler_heun_cfg", "heun_exact")):
        case, inputs, outputs = golden(name, "pixelhdm")
        model = pixelhdm(name)
        x = sampled(
            model,
            text(inputs),
            text(inputs, "null_"),
            inputs["z_0"].movedim(-1, 1),
            steps=case["sampler"]["num_steps"],
            solver=solver,
            cfg=case["sampler"]["guidance_scale"],
            convention="reference",
        )
        expected = outputs["final"].movedim(-1, 1)
        require(((x - expected).norm() / expected.norm()) < 2e-4, "the published walk differs")


def sampler_inputs(model, known, **options):
    size = known.default_size
    return {
        "model": model,
        "seed": 3,
        "steps": 5,
        "solver": "ab2",
        "cfg": 2.0,
        "width": size[1],
        "height": size[0],
        "batch_size": 3,
        **options,
    }


def core_picture(path, condition, null, noise, **settings):
    model = core().load_checkpoint(path)
    x = core().sample(model, condition(model), null and null(model), noise=noise, **settings)
    return model, x


def within(picture, model, x):
    """Whether an IMAGE has the core's levels, where states agree to 1e-4."""
    saved = (picture * 255).round().byte()
    signed = module("pixeldit_core.images").to_signed(model.params, x)
    low, high = (model.family.to_uint8(signed + shift).movedim(1, -1).cpu() for shift in (-2e-4, 2e-4))
    low, high = (level.expand(*level.shape[:-1], 3) for level in (low, high))
    require(picture.shape[-1] == 3 and ((low <= saved) & (saved <= high)).all(), "pictures differ")


def unit(count, params, size, seed=3):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(count, params.in_channels, *size), seed)


def check_sampler_node_gives_the_cores_pictures_in_the_loader_s_own_size():
    for name in XPRED:
        model = xpred(name)
        known = module("nodes.host.spec").find_spec(model)
        label = run("PixelDiTClassLabel", model=model, classes="0, 1, 2")
        for convention in ("standard", "reference"):
            inputs = sampler_inputs(model, known, width=0, height=0, positive=label[0], convention=convention)
            picture = run("PixelDiTSampler", **inputs)[0]
            core_model, x = core_picture(
                checkpoint(name),
                lambda model: core().class_condition(model, [0, 1, 2]),
                None,
                unit(3, known.params, known.default_size),
                steps=5,
                solver="ab2",
                cfg=2.0,
                cfg_interval=(0.1, 0.9),
                convention=convention,
            )
            within(picture, core_model, x)


def check_pixelhdm_through_the_sampler_node():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    known = module("nodes.host.spec").find_spec(model)
    parts = ("text_embed", "text_mask", "pooled_text_embed")
    one = {"positive": text(inputs, rows=slice(1)), "negative": text(inputs, "null_", slice(1)), "batch_size": 2}
    for solver in core().SOLVERS:
        settings = sampler_inputs(model, known, width=16, height=12, cfg_interval_start=0.0, cfg_interval_end=1.0)
        picture = run("PixelDiTSampler", **{**settings, **one, "solver": solver})[0]
        core_model, x = core_picture(
            checkpoint(HDM, "pixelhdm"),
            lambda model: core().text_condition(model, *(inputs[part][:1] for part in parts)),
            lambda model: core().text_condition(model, *(inputs[f"null_{part}"][:1] for part in parts)),
            unit(2, known.params, (12, 16)),
            steps=5,
            solver=solver,
            cfg=2.0,
        )
        within(picture, core_model, x)


def check_other_sizes_than_the_trained_one():
    for name, size in ((GREY, (16, 24)), ("dit-r1", (24, 20)), ("pixeldit-r1", (20, 16))):
        model = xpred(name)
        known = module("nodes.host.spec").find_spec(model)
        inputs = sampler_inputs(model, known, positive=labels([1]), height=size[0], width=size[1], batch_size=2)
        picture = run("PixelDiTSampler", **inputs)[0]
        core_model, x = core_picture(
            checkpoint(name),
            lambda model: core().class_condition(model, [1]),
            None,
            unit(2, known.params, size),
            steps=5,
            solver="ab2",
            cfg=2.0,
            cfg_interval=(0.1, 0.9),
        )
        within(picture, core_model, x)


def check_ksampler_paints_grey_digits():
    model = xpred(GREY)
    known = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, class_name="3")
    require(label[0][0][1]["pixeldit_class"].tolist() == [3])
    settings = {"model": model, "seed": 1, "steps": 4, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple"}
    settings |= {"positive": label[0], "negative": label[1], "denoise": 1.0}
    latent = run("KSampler", latent_image=empty((2, 3, 12, 12)), **settings)[0]  # any empty pixels will do
    require(latent["samples"].shape == (2, 1, 12, 12))
    picture = run("PixelDiTDecode", samples=latent)[0]
    require(picture.shape == (2, 12, 12, 3) and torch.equal(picture[..., 0], picture[..., 2]), "a gray picture in RGB")
    color = torch.rand(1, 12, 12, 3, generator=torch.Generator().manual_seed(0))
    encoded = run("PixelDiTEncode", pixels=color, model=model)[0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    close(encoded["samples"], ((color * weights).sum(-1) * 2 - 1)[:, None], 1e-6)
    back = run("PixelDiTDecode", samples=encoded)[0]
    close(back[..., 0], (color * weights).sum(-1), 0.51 / 255)
    again = run("KSampler", latent_image=encoded, **{**settings, "denoise": 0.5})[0]["samples"]
    require(again.shape == (1, 1, 12, 12) and torch.isfinite(again).all())
    raises(
        ValueError, "needs 1 channels", run, "KSampler", latent_image={"samples": torch.ones(1, 3, 12, 12)}, **settings
    )
    touched = run("PixelDiTSampler", **sampler_inputs(model, known, positive=label[0], image=color, denoise=0.3))[0]
    require(touched.shape == (3, 12, 12, 3))


def check_mean_and_spread_of_a_file_stay_inside_of_the_model():
    stored = torch.load(checkpoint("dit-r1"), weights_only=True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    stored["config"]["dataset"] |= {"normalize_mean": mean, "normalize_std": std}
    out_of("files").mkdir(exist_ok=True)
    torch.save(stored, out_of("files") / "imagenet-mean.pt")
    model = load(out_of("files") / "imagenet-mean.pt")
    known = module("nodes.host.spec").find_spec(model)
    require(known.params.image_mean == mean)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    inside = model.model.process_latent_in(pixels)
    expected = ((pixels + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    close(inside, expected, 1e-5)
    close(model.model.process_latent_out(inside), pixels, 1e-5)
    size = known.default_size
    label = run("PixelDiTClassLabel", model=model, classes="1")
    picture = run("PixelDiTSampler", **sampler_inputs(model, known, positive=label[0], batch_size=1))[0]
    core_model, x = core_picture(
        out_of("files") / "imagenet-mean.pt",
        lambda model: core().class_condition(model, [1]),
        None,
        unit(1, known.params, size),
        steps=5,
        solver="ab2",
        cfg=2.0,
        cfg_interval=(0.1, 0.9),
    )
    within(picture, core_model, x)
    preview = torch.tensor(model.model.latent_format.latent_rgb_factors)
    bias = torch.tensor(model.model.latent_format.latent_rgb_factors_bias)
    shown = torch.nn.functional.linear(inside[0].movedim(0, -1), preview.T, bias)
    close(shown, pixels[0].movedim(0, -1), 1e-5)


def check_frames_of_the_process():
    model = xpred(GREY)
    known = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, classes="0, 1, 2, 3, 4")
    inputs = sampler_inputs(model, known, positive=label[0], batch_size=5, steps=8)
    plain = run("PixelDiTSampler", **inputs)
    require(torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2]), "without frames, the pictures")
    made, states, estimates = run("PixelDiTSampler", **inputs, trajectory_frames=5)
    require(torch.equal(made, plain[0]), "frames change the picture")
    require(states.shape == estimates.shape == (5, 24, 36, 3), f"{tuple(states.shape)}")  # five pictures as 3 + 2
    first = unit(5, known.params, (12, 12))
    grid = [
        states[:, row * 12 : row * 12 + 12, column * 12 : column * 12 + 12] for row in (0, 1) for column in (0, 1, 2)
    ]
    for index in range(5):
        close(grid[index][0][..., 0], ((first[index, 0] + 1) / 2).clamp(0, 1), 0.51 / 255)
        require(torch.equal(grid[index][-1], made[index]), "the last frame is the picture")
    require(not grid[5].any(), "an empty place is black")
    require(torch.equal(states[-1], estimates[-1]))
    close(estimates[0][:12, :12, 0], _first_estimate(first), 0.51 / 255)
    require(run("PixelDiTSampler", **inputs, trajectory_frames=1)[1].shape[0] == 1, "a single frame is the picture")
    every = run("PixelDiTSampler", **inputs, trajectory_frames=100)[1]
    require(len(every) == 9, "no more frames than states")
    require(torch.equal(every[0], states[0]) and torch.equal(every[4], states[2]))


def _first_estimate(noise):
    model = core().load_checkpoint(checkpoint(GREY))
    v = model.velocity(noise[:1], 0.0, core().class_condition(model, [0]))
    return (((noise[:1] + v)[0, 0] + 1) / 2).clamp(0, 1)


def check_interval_rows_and_both_rules():
    model, calls = record_calls(xpred(GREY))
    known = module("nodes.host.spec").find_spec(model)
    label = run("PixelDiTClassLabel", model=model, classes="1")
    inputs = sampler_inputs(
        model, known, positive=label[0], batch_size=1, steps=10, solver="euler", timeshift=2.0, cfg_interval_end=1.0
    )
    run("PixelDiTSampler", **inputs)
    house = [len(call["x"]) for call in calls]
    calls.clear()
    run("PixelDiTSampler", **inputs, convention="reference")
    published = [len(call["x"]) for call in calls]
    require(house == [1, 1] + [2] * 8, f"{house}")  # shifted times 0, 0.053, 0.111 ...
    require(published == [1] + [2] * 9, f"{published}")  # unshifted ones, the limits included


def check_texts_of_pixelhdm_travel_in_one_batch_and_times_stay_in_training():
    model, calls = record_calls(pixelhdm())
    _, inputs, _ = golden(HDM, "pixelhdm")
    cut = int(inputs["text_mask"][:1].sum())
    positive = text(inputs, rows=slice(1))
    short = [[positive[0][0][:, :cut], {**positive[0][1], "attention_mask": positive[0][1]["attention_mask"][:, :cut]}]]
    settings = {"seed": 1, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    settings |= {"negative": text(inputs, "null_", slice(1)), "latent_image": empty((1, 3, 12, 16))}
    long = run("KSampler", model=model, positive=positive, **settings)[0]["samples"]
    require({len(call["x"]) for call in calls} == {2})
    calls.clear()
    cut_off = run("KSampler", model=model, positive=short, **settings)[0]["samples"]
    require({len(call["x"]) for call in calls} == {2}, "texts of different length are one call")
    close(long, cut_off, 1e-4)
    seen = []
    network = model.model.diffusion_model.time_embed
    hook = network.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].clone()))
    run("KSampler", model=model, positive=positive, **settings)
    hook.remove()
    seen = torch.cat(seen)
    require(seen.min() >= 0.05 and seen.max() <= 0.95, f"{seen}")


def check_texts_without_mask_or_pooled_vector_are_completed():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    full = inputs["text_embed"][:1]
    known = module("nodes.host.spec").find_spec(model)
    settings = sampler_inputs(model, known, width=16, height=12, batch_size=1, cfg=1.0)
    bare = run("PixelDiTSampler", positive=[[full, {}]], **settings)[0]
    told = [[full, {"attention_mask": torch.ones(1, full.shape[1]), "pooled_output": full[:, -1]}]]
    require(torch.equal(bare, run("PixelDiTSampler", positive=told, **settings)[0]))


def check_a_mask_of_zeros_is_no_text():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    known = module("nodes.host.spec").find_spec(model)
    settings = sampler_inputs(model, known, width=16, height=12, batch_size=1, cfg=1.0)
    pooled = inputs["pooled_text_embed"][:1]
    pictures = [
        run(
            "PixelDiTSampler",
            positive=[
                [scale * inputs["text_embed"][:1], {"attention_mask": torch.zeros(1, 6), "pooled_output": pooled}]
            ],
            **settings,
        )[0]
        for scale in (1.0, 5.0)
    ]
    require(torch.isfinite(pictures[0]).all() and torch.equal(*pictures), "what the mask leaves out counts")


def check_a_lora_and_a_saved_file_of_each_family():
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
        run("PixelDiTSaveModel", model=patched, filename_prefix=f"relatives/{name[:-12]}")
        saved = sorted((out_of("output") / "relatives").glob(f"{name[:-12]}*"))[-1]
        again = core().load_checkpoint(saved)
        close(again.network.state_dict()[key], weight + 0.5 * up @ down, 1e-4)
        require(again.params == model.model.pixeldit.params and again.family.name == model.model.pixeldit.family.name)


def check_the_host_reserves_what_a_pixel_path_needs():
    pc, loader = core(), module("nodes.host.load")
    preset = pc.VARIANTS["mmpixeldit-tiny/4-cifar10"]
    model = pc.build_model(preset.family, preset.params, device="cpu")
    for parameter in model.network.parameters():
        parameter.data.zero_()
    out_of("files").mkdir(exist_ok=True)
    large = loader.load_model(str(pc.save_checkpoint(model, out_of("files") / "large.safetensors")))
    usual, needed = (entry.model.memory_required((2, 3, 256, 256)) for entry in (pixelhdm(), large))
    bytes_each = large.model.get_dtype().itemsize
    require(needed / bytes_each > 1.6 * usual / 4, f"{needed} of {usual}")


def check_mistakes_are_told():
    stored = torch.load(checkpoint("pixeldit-r1"), weights_only=True)
    stored["config"]["model"] |= {"dit_dim": 4096}
    out_of("files").mkdir(exist_ok=True)
    torch.save(stored, out_of("files") / "contradicts.pt")
    raises(ValueError, "the config inside of it says dim = 4096", load, out_of("files") / "contradicts.pt")
    model, known = pixelhdm(), module("nodes.host.spec").find_spec(pixelhdm())
    settings = sampler_inputs(model, known, width=16, height=12, batch_size=1, cfg=1.0)
    raises(ValueError, "31 wide", run, "PixelDiTSampler", positive=[[torch.zeros(1, 4, 31), {}]], **settings)
    raises(ValueError, "Load Qwen3-0.6B", run, "PixelDiTSampler", positive=labels([1]), **settings)
    mask = {"attention_mask": torch.ones(1, 3)}
    raises(ValueError, "its mask 3", run, "PixelDiTSampler", positive=[[torch.zeros(1, 4, 32), mask]], **settings)
    raises(ValueError, "has no classes", run, "PixelDiTClassLabel", model=model, class_name="3")
    gray = xpred(GREY)
    known = module("nodes.host.spec").find_spec(gray)
    settings = sampler_inputs(gray, known, positive=[[torch.zeros(1, 4, 32), {}]])
    raises(ValueError, "is a class-conditional model", run, "PixelDiTSampler", **settings)
    settings = sampler_inputs(gray, known, positive=labels([1]), width=15)
    raises(ValueError, "nearest that does", run, "PixelDiTSampler", **settings)
    settings = sampler_inputs(gray, known, positive=labels([1]), convention="wrong")
    raises(ValueError, 'convention "wrong" is not known', run, "PixelDiTSampler", **settings)


def check_pixelhdm_has_a_largest_size():
    model = pixelhdm()
    known = module("nodes.host.spec").find_spec(model)
    (height, width), message = known.family.size_limits(known.params)[1], "does not fit the model, which generates"
    settings = sampler_inputs(model, known, width=width + 4, height=height, batch_size=1)
    raises(ValueError, message, run, "PixelDiTSampler", positive=[[torch.zeros(1, 4, 32), {}]], **settings)
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    settings |= {name: [[torch.zeros(1, 4, 32), {}]] for name in ("positive", "negative")}
    large = empty((1, 3, height + 1, width))
    raises(ValueError, message, run, "KSampler", model=model, latent_image=large, **settings)


def check_half_precision_of_every_family():
    for model in (load(checkpoint(GREY), f"{GREY}.pt"), pixelhdm()):
        name = model.model.pixeldit.source
        for dtype in ("bf16", "fp16", "fp8_e4m3fn"):
            half = run("PixelDiTLoader", checkpoint=name, weight_dtype=dtype)[0]
            known = half.model.pixeldit
            if known.family.condition == "class":
                positive = labels([1])
            else:
                positive = text(golden(HDM, "pixelhdm")[1], rows=slice(1))
            size = {"width": 16, "height": 12} if known.family.name == "pixelhdm" else {}
            inputs = sampler_inputs(half, known, positive=positive, batch_size=1, cfg=1.0, **size)
            exact = run("PixelDiTSampler", **{**inputs, "model": model})[0]
            rough = run("PixelDiTSampler", **inputs)[0]
            limit = 0.2 if dtype.startswith("fp8") else 0.05
            require((exact - rough).abs().mean() < limit, f"{name} {dtype}: {(exact - rough).abs().mean()}")


def check_other_attention_functions_of_the_host_take_the_mask():
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
