"""Text-to-image: the MODEL of our loader gives the core's pictures through every sampler."""

import tiny_t2i
import torch
from kit import (
    close,
    core,
    empty,
    golden,
    golden_folder,
    load,
    put,
    raises,
    record_calls,
    reference_processor,
    require,
    run,
    texts,
)

SHAPE = (2, 3, 32, 48)
SETTINGS = {"steps": 6, "cfg": 2.75}


def noise(shape=SHAPE, seed=5):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(shape), seed)


def ksampler(model, **options):
    inputs = {
        "model": model,
        "seed": 5,
        **SETTINGS,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": texts(seed=1),
        "negative": texts(seed=2),
        "latent_image": empty(SHAPE),
        "denoise": 1.0,
        **options,
    }
    return run("KSampler", **inputs)[0]["samples"]


def custom(model, solver, start, sigmas=None, **options):
    """SamplerCustomAdvanced from given noise, with our solver and grid."""

    class Noise:
        seed = 0

        def generate_noise(self, latent):
            return start

    inputs = {"positive": texts(seed=1), "negative": texts(seed=2), "cfg": SETTINGS["cfg"], **options}
    return run(
        "SamplerCustomAdvanced",
        noise=Noise(),
        guider=run("CFGGuider", model=model, **inputs)[0],
        sampler=run("PixelDiTSolver", solver=solver)[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=SETTINGS["steps"])[0] if sigmas is None else sigmas,
        latent_image=empty(tuple(start.shape)),
    )[0]["samples"]


def sampler(model, **options):
    inputs = {
        "model": model,
        "positive": texts(seed=1),
        "negative": texts(seed=2),
        "seed": 5,
        "solver": "flow_dpmpp_2m",
        "cfg_interval_start": 0.0,
        "cfg_interval_end": 1.0,
        "width": SHAPE[3],
        "height": SHAPE[2],
        "batch_size": SHAPE[0],
        **SETTINGS,
        **options,
    }
    return run("PixelDiTSampler", **inputs)[0]


def core_run(solver="flow_dpmpp_2m", start=None, **options):
    model = tiny_t2i.core_model()
    conditions = [core().text_condition(model, texts(seed=seed)[0][0]) for seed in (1, 2)]
    options = {"noise": noise() if start is None else start, "cfg_interval": (0.0, 1.0), **SETTINGS, **options}
    return model, core().sample(model, *conditions, solver=solver, **options)


def check_loader_knows_the_family_and_its_settings():
    model = tiny_t2i.ours()
    known = model.model.pixeldit
    require(known.family.name == "pixeldit_t2i" and known.params.txt_embed_dim == 20)
    require(model.get_model_object("model_sampling").shift == 4.0, "KSampler's shift is the published one at 1024")
    from kit import module

    text = module("nodes.loader").describe(known)
    require("at 1024 x 1024: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 4" in text, text)
    require("at 512 x 512: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 3" in text, text)


def check_ksampler_gives_the_cores_result():
    import comfy.samplers

    model = tiny_t2i.ours()
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", SETTINGS["steps"])
    guided = run("PixelDiTCFGInterval", model=model, start=0.0, end=1.0)[0]
    _, x = core_run("euler", times=1 - sigmas)
    close(ksampler(guided), x, 1e-4)


def check_every_solver_and_the_grid_through_sampler_custom_advanced():
    model = tiny_t2i.ours()
    sigmas = run("PixelDiTScheduler", model=model, steps=SETTINGS["steps"], timeshift=4.0)[0]
    for solver in core().SOLVERS:
        _, x = core_run(solver, start=sigmas[0] * noise(), timeshift=4.0)
        close(custom(model, solver, noise(), sigmas), x, 1e-4)


def check_sampler_node_gives_the_cores_uint8_image():
    for solver in core().SOLVERS:
        model, x = core_run(solver, timeshift=4.0)
        picture = sampler(tiny_t2i.ours(), solver=solver, timeshift=4.0)
        require(torch.equal((picture * 255).round().byte(), core().to_uint8(model, x)), f"{solver}: pictures differ")
        require(torch.equal((picture * 255).byte(), core().to_uint8(model, x)), "SaveImage truncates")


def check_the_published_runs():
    """The reference's own trajectories, through the host: grid, solver, interval, guided rows."""
    for name in ("2steps", "cfg1", "shift1_interval", "shift3_interval", "shift4"):
        case, inputs, outputs = golden(f"t2i_sample_{name}")
        settings = case["sampler_settings"]
        model = load(golden_folder(f"t2i_sample_{name}") / case["checkpoint"], "published.pth")
        low, high = settings["interval_guidance"]  # in sigma
        model = run("PixelDiTCFGInterval", model=model, start=1 - high, end=1 - low)[0]
        model, calls = record_calls(model)
        sigmas = run("PixelDiTScheduler", model=model, steps=settings["steps"], timeshift=settings["flow_shift"])[0]
        close(sigmas, outputs["timesteps"], 1e-6)
        conditions = {"positive": [[inputs["y_cond"][:, 0], {}]], "negative": [[inputs["y_uncond"][:, 0], {}]]}
        start = inputs["noise"] / sigmas[0]  # pure noise, though the grid starts below 1
        x = custom(model, "flow_dpmpp_2m", start, sigmas, cfg=settings["cfg_scale"], **conditions)
        close(x, outputs["final"], 2e-3)
        rows = [len(call["x"]) for call in calls]
        count = len(inputs["noise"])
        require(rows == [count * (2 if flag else 1) for flag in outputs["guided"].tolist()], f"{name}: {rows}")


def check_the_hosts_own_runs():
    """What ComfyUI's own PixelDiT gave: euler, dpmpp_2m, heun, image to image, inpainting, other sizes, long text."""
    for name in ("core", "img2img", "img2img-inpaint", "pad", "longtext"):
        case, inputs, outputs = golden(f"comfy-t2i-{name}", "peers")
        model = load(golden_folder(f"comfy-t2i-{name}", "peers") / "checkpoint.safetensors", f"{name}.safetensors")
        tolerance = case["fp64_check"]["suggested_atol_velocity"]
        sigma = inputs["timesteps"] / 1000
        model.patch_model(torch.device("cpu"))
        with reference_processor():
            denoised = model.model.apply_model(inputs["x"], sigma, c_crossattn=inputs["context"])
        model.unpatch_model(torch.device("cpu"))
        close(denoised, outputs["denoised"], tolerance)
        for settings in case.get("sampling", {}).get("runs", []):
            close(sample_as_recorded(model, inputs, settings), outputs[f"{settings['name']}.result"], 1e-3)


def sample_as_recorded(model, inputs, settings):
    import comfy.sample

    return comfy.sample.sample(
        model,
        inputs["noise"],
        settings["steps"],
        settings["cfg"],
        settings["sampler"],
        settings["scheduler"],
        [[inputs["context"], {}]],
        [[inputs["negative"], {}]],
        inputs["latent"],
        denoise=settings.get("denoise", 1.0),
        noise_mask=inputs.get("mask"),
        seed=0,
    )


def check_automatic_timeshift_follows_the_size():
    model = tiny_t2i.ours()

    def grid(height, width, **options):
        latent = empty((1, 3, height, width))
        return run("PixelDiTScheduler", model=model, steps=10, latent=latent, **options)[0]

    close(grid(1024, 1024), 1 - core().time_grid(tiny_t2i.core_model(), 10, 4.0), 1e-6)
    close(grid(512, 2048), grid(1024, 1024), 0)
    close(grid(512, 512), 1 - core().time_grid(tiny_t2i.core_model(), 10, 3.0), 1e-6)
    close(grid(1024, 256), grid(512, 512), 0)
    patched = run("ModelSamplingSD3", model=model, shift=2.0)[0]
    close(run("PixelDiTScheduler", model=patched, steps=10)[0], grid(64, 64, timeshift=2.0), 0)


def check_texts_of_different_length_are_two_calls():
    """A shorter negative is neither padded nor repeated: positions and number of tokens matter."""
    model, calls = record_calls(tiny_t2i.ours())
    made = sampler(model, negative=texts(4, seed=2), batch_size=1, timeshift=4.0)
    require([len(call["x"]) for call in calls] == [1] * 12, "two calls for each of six guided steps")
    known = tiny_t2i.core_model()
    cond, null = (core().text_condition(known, entry[0][0]) for entry in (texts(seed=1), texts(4, seed=2)))
    x = core().sample(
        known,
        cond,
        null,
        noise=noise((1, *SHAPE[1:])),
        timeshift=4.0,
        solver="flow_dpmpp_2m",
        cfg_interval=(0, 1),
        **SETTINGS,
    )
    require(((made * 255).round() - core().to_uint8(known, x)).abs().max() <= 1)


def check_interval_skips_the_null_pass():
    model, calls = record_calls(tiny_t2i.ours())
    sampler(model, cfg_interval_start=0.2, cfg_interval_end=0.8, timeshift=1.0, batch_size=1)
    rows = [len(call["x"]) for call in calls]
    require(sum(rows) == 6 + sum(0.2 < 1 - float(call["sigma"][0]) < 0.8 for call in calls), str(rows))
    require(set(rows) == {1, 2})


def check_without_guidance_no_negative_is_needed():
    model = tiny_t2i.ours()
    require(torch.equal(sampler(model, negative=None, cfg=1.0), sampler(model, cfg=1.0)))
    raises(ValueError, "PixelDiT Text Prompt has one", sampler, model, negative=None)


def check_recipes_and_notes():
    from kit import module

    render = module("nodes.host.render").render
    model = tiny_t2i.ours()

    def told(recipe="as set below", size=(32, 32), positive=None, **options):
        settings = {
            "seed": 5, "steps": 2, "solver": "flow_dpmpp_2m", "cfg": 1.0, "timeshift": 0.0, "cfg_interval_start": 0.0,
            "cfg_interval_end": 1.0, "batch_size": 1, "denoise": 1.0, "height": size[0], "width": size[1],
        }  # fmt: skip
        return render(model, positive or texts(), texts(seed=2), None, None, recipe=recipe, **{**settings, **options})[
            1
        ]

    require("far from every size that the model was trained on" in told(), told())
    require("the nearest is " in told(size=(208, 208)), told(size=(208, 208)))
    text = told("t2i-1024-fast")
    require("25 steps flow_dpmpp_2m, cfg 2.75, timeshift 4, interval 0 to 1, 32 x 32" in text, text)
    require("this recipe is for 1024 x 1024" in text, text)
    require("is for another kind of model" in told("imagenet256-epoch320"))
    near = told(size=(512, 512), steps=2)
    require("note" not in near and "timeshift 3" in near, near)
    raises(ValueError, "at least 2", told, steps=1)
    require("the text has 20 tokens, the model reads the first 12" in told(positive=texts(20)), "a cut is said")


def check_lora_saving_and_partial_loading():
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
    require(torch.equal(apply(again)[1], apply(tiny_t2i.ours())[1]))


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


def apply(model, **options):
    """One network call of a MODEL, loaded as asked: -> x and what the host's apply_model gives."""
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    model.patch_model(torch.device("cpu"), **options)
    try:
        return x, model.model.apply_model(x, torch.full((2,), 0.6), c_crossattn=texts(rows=2)[0][0])
    finally:
        model.unpatch_model(torch.device("cpu"))


def check_precisions():
    x, exact = apply(tiny_t2i.ours())
    path = put(tiny_t2i.file(), "precise.safetensors")
    for name, tolerance in (("bf16", 0.05), ("fp16", 0.01), ("fp8_e4m3fn", 0.2)):
        model = run("PixelDiTLoader", checkpoint=path, weight_dtype=name)[0]
        error = ((apply(model)[1] - exact).norm() / (exact - x).norm()).item()
        require(error < tolerance, f"{name}: relative error {error:.3f}")


def check_wrong_conditionings_are_told():
    from kit import labels, load_tiny

    model = tiny_t2i.ours()
    raises(ValueError, "has a class", sampler, model, positive=labels([3]))
    raises(ValueError, "PixelDiT Text Prompt", ksampler, model, negative=labels([3]))
    raises(ValueError, "is 4096 wide", ksampler, model, positive=texts(width=4096))
    raises(ValueError, "Load gemma_2_2b_it_elm", sampler, model, positive=texts(width=16))
    raises(ValueError, "PixelDiT Class Label", run, "KSampler", **class_inputs(load_tiny()))
    raises(ValueError, "has no classes", run, "PixelDiTClassLabel", model=model, class_name="3")
    raises(ValueError, "no last_step", run, "PixelDiTScheduler", model=model, steps=5, last_step=0.1)
    require(torch.isfinite(sampler(model)).all(), "the next run works")


def class_inputs(model):
    return {
        "model": model, "seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple",
        "positive": texts(), "negative": texts(), "latent_image": empty((1, 3, 16, 16)), "denoise": 1.0,
    }  # fmt: skip


def check_files_of_relatives_are_refused_by_name():
    for name in ("comfy-pid-v1", "comfy-pid-v1_5"):
        path = next(golden_folder(name, "peers").glob("checkpoint.*"))
        raises(ValueError, "Use ComfyUI's own PiD nodes", load, path, f"{name}{path.suffix}")
