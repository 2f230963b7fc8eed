"""Every way to sample gives the core's own pictures."""

import torch
from kit import close, core, empty, golden, labels, load_tiny, module, raises, record_calls, require, run, sampler_net

SETTINGS = {"steps": 10, "cfg": 2.5}
SHAPE = (2, 3, 16, 16)
CLASSES = [3, 7]


def noise(seed=5, shape=SHAPE):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(shape), seed)


def core_run(solver, interval=(0.1, 0.9), timeshift=1.0, **options):
    """The core's final state and its states by step."""
    pc, states = core(), []
    model = pc.load_checkpoint(sampler_net())
    options = {"noise": noise(), **SETTINGS, **options}
    x = pc.sample(
        model,
        torch.tensor(CLASSES),
        solver=solver,
        timeshift=timeshift,
        cfg_interval=interval,
        on_step=lambda i, t, x, v: states.append(x.clone()),
        **options,
    )
    return model, x, states


def ksampler(model, **options):
    inputs = {
        "model": model,
        "seed": 5,
        **SETTINGS,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": labels(CLASSES),
        "negative": labels([10]),
        "latent_image": empty(SHAPE),
        "denoise": 1.0,
        **options,
    }
    return run("KSampler", **inputs)[0]["samples"]


def pixeldit(model, **options):
    inputs = {
        "model": model,
        "positive": labels(CLASSES),
        "negative": labels([10]),
        "seed": 5,
        "width": 16,
        "height": 16,
        **SETTINGS,
        **options,
    }
    return run("PixelDiTSampler", **inputs)[0]


def custom(model, solver="ab2", sigmas=None, latent=None, cfg=2.5):
    return run(
        "SamplerCustomAdvanced",
        noise=run("RandomNoise", noise_seed=5)[0],
        guider=run("CFGGuider", model=model, positive=labels(CLASSES), negative=labels([10]), cfg=cfg)[0],
        sampler=run("PixelDiTSolver", solver=solver)[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=10)[0] if sigmas is None else sigmas,
        latent_image=latent or empty(SHAPE),
    )[0]["samples"]


def guided(model, start=0.1, end=0.9):
    return run("PixelDiTCFGInterval", model=model, start=start, end=end)[0]


def check_ksampler_gives_the_cores_trajectory():
    model, calls = record_calls(guided(load_tiny()))
    result = ksampler(model)
    _, x, states = core_run("euler")
    close(result, x, 1e-4)
    for call, state in zip(calls[1:], states[:-1], strict=True):
        close(call["x"][-2:], state, 1e-4)


def check_sampler_custom_advanced_gives_the_cores_trajectory_with_every_solver():
    for solver in core().SOLVERS:
        result = custom(guided(load_tiny()), solver)
        _, x, _ = core_run(solver)
        close(result, x, 1e-4)


def check_sampler_node_gives_the_cores_uint8_image():
    for solver in core().SOLVERS:
        picture = pixeldit(load_tiny(), solver=solver)
        model, x, _ = core_run(solver)
        expected = core().to_uint8(model, x)
        require(torch.equal((picture * 255).round().byte(), expected), f"{solver}: pictures differ")
        require(torch.equal((picture * 255).byte(), expected), "SaveImage truncates: levels must survive it")


def check_golden_boundary_case_through_the_sigma_domain():
    case, inputs, outputs = golden("c2i_sample_flowdpm_edge10")
    settings = case["sampler_settings"]
    require(settings["num_steps"] == 10 and settings["guidance_interval_min"] == 0.1)
    model, calls = record_calls(guided(load_tiny(), 0.1, 0.9))
    samples = sample_from(model, inputs["noise"], case["labels"], settings)
    close(samples, outputs["final"], 1e-4)
    rows = [len(call["x"]) for call in calls]
    count = len(case["labels"])
    require(rows == [count * (2 if flag else 1) for flag in outputs["guided"].tolist()], f"rows {rows}")


def check_golden_shifted_case_through_the_sigma_domain():
    case, inputs, outputs = golden("c2i_sample_flowdpm_ts2")
    settings = case["sampler_settings"]
    limits = settings["guidance_interval_min"], settings["guidance_interval_max"]
    shifted = run("ModelSamplingSD3", model=load_tiny(), shift=settings["timeshift"])[0]
    close(sample_from(guided(shifted, *limits), inputs["noise"], case["labels"], settings), outputs["final"], 1e-4)


def sample_from(model, start, classes, settings):
    """SamplerCustomAdvanced from given noise."""

    class Noise:
        seed = 0

        def generate_noise(self, latent):
            return start

    return run(
        "SamplerCustomAdvanced",
        noise=Noise(),
        guider=run("CFGGuider", model=model, positive=labels(classes), negative=labels([10]), cfg=settings["guidance"])[
            0
        ],
        sampler=run("PixelDiTSolver", solver="ab2")[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=settings["num_steps"])[0],
        latent_image=empty(tuple(start.shape)),
    )[0]["samples"]


def check_model_sampling_sd3_is_the_timeshift():
    shifted = run("ModelSamplingSD3", model=load_tiny(), shift=3.0)[0]
    _, x, _ = core_run("euler", timeshift=3.0)
    close(ksampler(guided(shifted)), x, 1e-4)
    model, x, _ = core_run("ab2", timeshift=3.0)
    automatic, explicit = pixeldit(shifted), pixeldit(load_tiny(), timeshift=3.0)
    require(torch.equal(automatic, explicit), "timeshift 0 takes the patched shift")
    require(torch.equal((explicit * 255).round().byte(), core().to_uint8(model, x)))
    once = run("PixelDiTScheduler", model=shifted, steps=10, timeshift=2.0)[0]
    close(once, 1 - core().time_grid(model, 10, 2.0), 1e-6)  # never both


def check_automatic_timeshift_follows_the_size():
    model = load_tiny()
    large = run("PixelDiTScheduler", model=model, steps=10, latent=empty((1, 3, 512, 512)))[0]
    small = run("PixelDiTScheduler", model=model, steps=10, latent=empty((1, 3, 256, 256)))[0]
    close(large, run("PixelDiTScheduler", model=model, steps=10, timeshift=2.0)[0], 0)
    close(small, run("PixelDiTScheduler", model=model, steps=10, timeshift=1.0)[0], 0)


def check_cfg_interval_skips_the_null_pass():
    model, calls = record_calls(load_tiny())
    pixeldit(model, steps=100, positive=labels([3]))
    require(sum(len(call["x"]) for call in calls) == 179, "100 steps, interval 0.1 to 0.9: 79 * 2 + 21 rows")
    model, calls = record_calls(guided(load_tiny()))
    ksampler(model, steps=100)
    require(sum(len(call["x"]) for call in calls) == 2 * 179)


def check_cfg_interval_on_a_model_that_is_not_ours():
    """A host flow model with nothing of ours in it; its guidance must follow the interval, and its cfg come back."""
    from foreign import foreign_model

    text = [[torch.zeros(1, 1, 4), {}]]
    model, calls = record_calls(guided(foreign_model(), 0.25, 0.85))
    result = ksampler(model, positive=text, negative=[[torch.ones(1, 1, 4), {}]])
    rows = [len(call["x"]) for call in calls]
    require(rows == [2, 2, 2, 4, 4, 4, 4, 4, 4, 2], f"rows {rows}")
    close(result, by_hand(foreign_model(), 0.25, 0.85), 1e-5)


def by_hand(model, start, end):
    """The same ten Euler steps, written out."""
    x = noise()
    for step in range(10):
        sigma = 1 - step / 10
        v = model.model.diffusion_model.velocity(x, sigma, 0.0)
        if start < 1 - sigma < end:
            null = model.model.diffusion_model.velocity(x, sigma, 1.0)
            v = null + 2.5 * (v - null)
        x = x - 0.1 * v
    return x


def check_a_batch_has_one_class_per_image():
    both = pixeldit(load_tiny())
    for index, label in enumerate(CLASSES):
        one = run(
            "PixelDiTSampler", model=load_tiny(), positive=labels([label] * 2), seed=5, width=16, height=16, **SETTINGS
        )[0]
        close(both[index], one[index], 1.1 / 255)
    positive, null = run("PixelDiTClassLabel", model=load_tiny(), class_name="3", classes="3, 7")
    require(torch.equal(both, pixeldit(load_tiny(), positive=positive, negative=null)))
    require(torch.equal(both, pixeldit(load_tiny(), positive=positive, negative=None)), "the null is automatic")
    require(len(pixeldit(load_tiny(), batch_size=5)) == 5)


def check_same_seed_same_picture():
    require(torch.equal(pixeldit(load_tiny()), pixeldit(load_tiny())))
    require(not torch.equal(pixeldit(load_tiny()), pixeldit(load_tiny(), seed=6)))
    require(torch.equal(ksampler(load_tiny()), ksampler(load_tiny())))


def picture(height=16, width=16, channels=3):
    return (torch.arange(height * width * channels) % 256).reshape(1, height, width, channels).float() / 255


def check_image_to_image():
    start = picture()
    latent = run("PixelDiTEncode", pixels=start)[0]
    by_host = ksampler(guided(load_tiny()), denoise=0.5, latent_image=latent, steps=5, positive=labels([3]))
    single = core().sample(
        core().load_checkpoint(sampler_net()),
        torch.tensor([3]),
        noise=noise(shape=(1, 3, 16, 16)),
        steps=5,
        cfg=2.5,
        solver="euler",
        timeshift=1.0,
        cfg_interval=(0.1, 0.9),
        image=latent["samples"],
        denoise=0.5,
    )
    close(by_host, single, 1e-4)
    ours = pixeldit(load_tiny(), solver="euler", steps=5, denoise=0.5, image=start, positive=labels([3]))
    close(ours, run("PixelDiTDecode", samples={"samples": by_host})[0], 1.1 / 255)


def check_mask_keeps_the_outside_exactly():
    start = picture()
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1
    made = pixeldit(load_tiny(), image=start, mask=mask, positive=labels([3]))
    outside = (mask == 0)[0]
    require(torch.equal((made[0][outside] * 255).byte(), (start[0][outside] * 255).round().byte()))
    require(not torch.equal(made[0][~outside], start[0][~outside]), "inside something new is painted")
    latent = run("PixelDiTEncode", pixels=start, mask=mask)[0]
    by_host = run(
        "PixelDiTDecode", samples={"samples": ksampler(load_tiny(), latent_image=latent, positive=labels([3]))}
    )
    require(torch.equal((by_host[0][0][outside] * 255).byte(), (start[0][outside] * 255).round().byte()))


def check_encode_and_decode_are_exact_and_drop_transparency():
    start = picture(8, 12)
    back = run("PixelDiTDecode", samples=run("PixelDiTEncode", pixels=start)[0])[0]
    require(torch.equal((back * 255).byte(), (start * 255).round().byte()))
    rgba = torch.cat([start, torch.ones(1, 8, 12, 1)], dim=-1)
    close(run("PixelDiTEncode", pixels=rgba)[0]["samples"], run("PixelDiTEncode", pixels=start)[0]["samples"], 0)
    raises(ValueError, "vae decode", run, "PixelDiTDecode", samples=empty((1, 4, 8, 8)))


def check_odd_sizes_are_padded_and_cropped_by_the_ksampler_path():
    result = ksampler(load_tiny(), latent_image=empty((1, 3, 18, 13)), positive=labels([3]))
    require(tuple(result.shape) == (1, 3, 18, 13) and torch.isfinite(result).all())


def check_recipes():
    model = load_tiny()
    raises(ValueError, "no settings", pixeldit, model, settings="checkpoint default")
    named = pixeldit(model, settings="imagenet256-epoch320", steps=3, cfg=9.0)
    same = pixeldit(model, steps=100, solver="ab2", cfg=2.75, timeshift=1.0, settings="custom")
    require(torch.equal(named, same), "a settings takes the place of the settings")


def check_previews_and_progress_each_step():
    import comfy.utils

    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **more: seen.append((value, total, preview)))
    from comfy.cli_args import LatentPreviewMethod, args

    before, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        pixeldit(load_tiny(), positive=labels([3]))
    finally:
        args.preview_method = before
        comfy.utils.set_progress_bar_global_hook(None)
    require([entry[:2] for entry in seen] == [(step, 10) for step in range(1, 11)], str(seen))
    sizes = [entry[2][1].size for entry in seen]
    require(sizes == [(16, 16)] * 10, "a preview of full size each step")


def check_interrupt_in_the_middle():
    import comfy.model_management as mm

    model = load_tiny()
    count = 0

    def stop(executor, *arguments, **more):
        nonlocal count
        count += 1
        if count == 3:
            mm.interrupt_current_processing()
        return executor(*arguments, **more)

    import comfy.patcher_extension
    import comfy.utils

    # main.py's hook looks for an interrupt whenever progress is told
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: mm.throw_exception_if_processing_interrupted())
    patched = model.clone()
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "stop", stop)
    for sample in (pixeldit, ksampler):
        count = 0
        try:
            sample(patched)
        except mm.InterruptProcessingException:
            pass
        else:
            raise AssertionError("not interrupted")
        require(3 <= count <= 4, f"{count} calls")
    require(torch.equal(pixeldit(model), pixeldit(load_tiny())), "the next run is whole")
    comfy.utils.set_progress_bar_global_hook(None)


def check_nan_weights_are_said_after_sampling():
    model = load_tiny()
    with torch.no_grad():
        model.model.diffusion_model.final_layer.linear.weight.fill_(float("nan"))
    raises(ValueError, "not finite", pixeldit, model)
    raises(ValueError, "not finite", run, "PixelDiTDecode", samples={"samples": ksampler(model)})


def check_image_and_mask_of_another_size_are_fitted_together():
    start, mask = picture(40, 24), torch.zeros(1, 40, 24)
    mask[:, 16:24, 6:18] = 1
    made = pixeldit(load_tiny(), image=start, mask=mask, positive=labels([3]))
    fitted = module("nodes.host.pixels").fit(start, 16, 16)
    kept = module("nodes.host.pixels").fit(mask[..., None], 16, 16)[0, ..., 0] == 0
    require(tuple(made.shape) == (1, 16, 16, 3) and 0 < kept.sum() < 256)
    require(torch.equal((made[0][kept] * 255).byte(), (fitted[0][kept] * 255).byte()), "outside stays")
