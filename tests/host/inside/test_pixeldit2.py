"""PixelDiT2 as a MODEL: every way to sample gives the core's images, at both scales of its noise."""

import pytest
import torch
from hooks import has, load_nodes
from kit import close, core, empty, labels, load, module, record_calls, run
from other_families import sampled
from pixeldit2 import core_model, count_rows, of_case, pixeldit2

HEUN = ("sample_heun_256_50", "sample_heun_512_24_noclamp", "sample_heun_512_50", "sample_heun_256_odd7")
SHAPE = (2, 3, 16, 24)
CLASSES, NULL = [1, 4], 5
SCALES = (1.0, 2.0)
SETTINGS = {"steps": 10, "cfg": 2.5}
WINDOW = (0.125, 0.9)


def noise(seed=5):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(SHAPE), seed)


def expected(scale, **options):
    """The core's final state."""
    settings = {"noise": noise(), "solver": "euler", "cfg_interval": WINDOW, **SETTINGS, **options}
    return core().sample(core_model(noise_scale=scale), torch.tensor(CLASSES), **settings)


def guided(scale, **changes):
    model = pixeldit2(noise_scale=scale, **changes)
    return run("PixelDiTCFGInterval", model=model, start=WINDOW[0], end=WINDOW[1])[0]


def conditions():
    return {"positive": labels(CLASSES, NULL), "negative": labels([NULL], NULL)}


def ksampler(model, **options):
    inputs = {"model": model, "seed": 5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **SETTINGS}
    return run("KSampler", **inputs | conditions() | {"latent_image": empty(SHAPE)} | options)[0]["samples"]


def custom(model, solver=None, latent=None, sampler=None, denoise=1.0):
    return run(
        "SamplerCustomAdvanced",
        noise=run("RandomNoise", noise_seed=5)[0],
        guider=run("CFGGuider", model=model, cfg=2.5, **conditions())[0],
        sampler=sampler or run("PixelDiTSolver", solver=solver)[0],
        sigmas=run("PixelDiTScheduler", model=model, steps=10, denoise=denoise)[0],
        latent_image=latent or empty(SHAPE),
    )[0]["samples"]


def node(model, **options):
    inputs = {"seed": 5, "width": SHAPE[3], "height": SHAPE[2], "cfg_interval_start": WINDOW[0], "solver": "euler"}
    return run("PixelDiTSampler", **{"model": model, **inputs, **SETTINGS, **conditions(), **options})


def test_recorded_trajectories():
    for name in HEUN:
        case, _, outputs, _, path = of_case(name)
        settings, null = case["sampler_settings"], case["null_label"]
        generators = [torch.Generator().manual_seed(seed) for seed in case["noise"]["seeds"]]
        size = (3, case["height"], case["width"])
        x = sampled(
            load(path),
            labels(case["labels"], null),
            labels([null], null),
            torch.stack([torch.randn(size, generator=generator) for generator in generators]),
            "reference" if settings["t_eps"] else "standard",
            steps=settings["num_steps"],
            solver="heun_exact",
            cfg=settings["guidance"],
            cfg_interval=(settings["guidance_interval_min"], settings["guidance_interval_max"]),
        )
        close(x, outputs["final"], 1e-4)


def test_every_way_to_sample_gives_the_cores_result():
    for scale in SCALES:
        model = guided(scale)
        close(ksampler(model), expected(scale), 1e-5)
        for solver in core().SOLVERS:
            close(custom(model, solver), expected(scale, solver=solver), 1e-5)
        for convention in ("standard", "reference"):
            x = expected(scale, convention=convention)
            made = (node(pixeldit2(noise_scale=scale), convention=convention)[0] * 255).round().byte()
            low, high = (core().to_uint8(core_model(), x + shift) for shift in (-2e-5, 2e-5))
            assert ((low <= made) & (made <= high)).all()


def test_image_to_image_and_inpainting():
    image = torch.randint(0, 256, (2, 16, 24, 3), generator=torch.Generator().manual_seed(1)).float() / 255
    mask = torch.zeros(1, 16, 24)
    mask[:, 4:9, 6:15] = 1
    mask[:, 4:9, 15] = 0.5
    for scale in SCALES:
        model, network = guided(scale), core_model(noise_scale=scale)
        start = {"image": core().from_image(network, image), "denoise": 0.5}
        plain = run("PixelDiTEncode", pixels=image)[0]
        masked = run("PixelDiTEncode", pixels=image, mask=mask)[0]
        for latent, more in ((plain, {}), (masked, {"mask": mask[:, None]})):
            x = expected(scale, **start, **more)
            close(ksampler(model, latent_image=latent, denoise=0.5), x, 1e-5)
            close(custom(model, "euler", latent, denoise=0.5), x, 1e-5)
            given = {"image": image, "mask": mask} if more else {"image": image}
            made = node(pixeldit2(noise_scale=scale), width=0, height=0, denoise=0.5, **given)[0]
            close(made, core().to_uint8(network, x).float() / 255, 1.01 / 255)


def test_nodes_that_replace_the_sampling_keep_the_noise():
    load_nodes("model_advanced")
    flux = {"max_shift": 0.0, "base_shift": 0.0, "width": 1024, "height": 1024}  # the logarithm of a factor of 1
    for scale in SCALES:
        for name, options in (("SD3", {"shift": 1.0}), ("AuraFlow", {"shift": 1.0}), ("Flux", flux)):
            patched = run(f"ModelSampling{name}", model=guided(scale), **options)[0]
            recorded, calls = record_calls(patched)
            samples = ksampler(recorded)
            close(calls[0]["x"][:2], scale * noise(), 1e-6)
            if name != "Flux":  # has a grid of its own
                close(samples, expected(scale), 1e-5)
        again = run("ModelSamplingSD3", model=guided(scale), shift=2.0)[0]
        close(ksampler(again), expected(scale, timeshift=2.0), 1e-5)
        close(custom(again, "heun_exact"), expected(scale, timeshift=2.0, solver="heun_exact"), 1e-5)


def test_add_noise():
    image, at = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1, torch.tensor([0.7, 0.0])
    for scale in SCALES:
        given = run(
            "AddNoise", model=guided(scale), noise=run("RandomNoise", noise_seed=5)[0], sigmas=at,
            latent_image={"samples": image},
        )[0]["samples"]  # fmt: skip
        close(given, 0.7 * scale * noise() + 0.3 * image, 1e-6)


def test_comfyuis_own_node_sets_another_scale():
    load_nodes("model_advanced")
    if not has("ModelNoiseScale"):
        pytest.skip("this ComfyUI has no ModelNoiseScale")
    model = run("ModelNoiseScale", model=guided(2.0), noise_scale=1.5)[0]
    close(ksampler(model), expected(2.0, noise=0.75 * noise()), 1e-5)
    shifted = run("ModelSamplingSD3", model=model, shift=2.0)[0]
    close(ksampler(shifted), expected(2.0, noise=0.75 * noise(), timeshift=2.0), 1e-5)


def test_samplers_that_add_noise_scale_it_too():
    """From the same start, noise of scale 2 in the MODEL is that of scale 1 with s_noise 2."""
    large, small = guided(2.0), guided(1.0)
    for name, options in (
        ("SamplerEulerAncestral", {"eta": 1.0}),
        ("SamplerDPMPP_2M_SDE", {"solver_type": "midpoint", "eta": 1.0, "noise_device": "cpu"}),
        ("SamplerDPMPP_SDE", {"eta": 1.0, "r": 0.5, "noise_device": "cpu"}),
    ):
        plain, doubled = (run(name, s_noise=s_noise, **options)[0] for s_noise in (1.0, 2.0))
        made = custom(large, sampler=plain)

        class Doubled:
            seed = 5

            def generate_noise(self, latent):
                return 2 * noise()

        other = run(
            "SamplerCustomAdvanced",
            noise=Doubled(),
            guider=run("CFGGuider", model=small, cfg=2.5, **conditions())[0],
            sampler=doubled,
            sigmas=run("PixelDiTScheduler", model=small, steps=10)[0],
            latent_image=empty(SHAPE),
        )[0]["samples"]
        close(made, other, 1e-5)
        assert torch.isfinite(made).all() and plain.extra_options["s_noise"] == 1.0, "the SAMPLER is as it was"


def test_frames_begin_with_the_noise():
    import comfy.sample

    for scale in SCALES:
        for model in (pixeldit2(noise_scale=scale), run("ModelSamplingSD3", model=guided(scale), shift=1.0)[0]):
            _, states, _, _ = node(model, trajectory_frames=3, positive=labels([1], NULL), batch_size=1)
            assert states.shape == (3, 16, 24, 3)
            start = scale * comfy.sample.prepare_noise(torch.zeros(1, *SHAPE[1:]), 5)
            close(states[0], ((start[0].movedim(0, -1) + 1) / 2).clamp(0, 1), 0.51 / 255)


def test_the_encoder_sees_the_grounded_rows_only_and_once():
    model = pixeldit2()
    seen = count_rows(model)
    node(model, **{**SETTINGS, "cfg_interval_start": 0.35, "cfg_interval_end": 0.65})
    assert seen["network"] == [2] * 4 + [4] * 3 + [2] * 3, seen
    assert seen["encoder"] == [2] * 10, seen
    for calls in seen.values():
        calls.clear()
    ksampler(run("PixelDiTCFGInterval", model=model, start=0.35, end=0.65)[0])
    assert seen["network"] == [2] * 4 + [4] * 3 + [2] * 3 and seen["encoder"] == [2] * 10, seen


def test_no_class_is_not_grounded():
    model = pixeldit2()
    seen = count_rows(model)
    zeroed = run("ConditioningZeroOut", conditioning=labels([3], NULL))[0]
    a = ksampler(model, positive=labels([NULL], NULL), cfg=1.0)
    assert not seen["encoder"] and torch.equal(a, ksampler(model, positive=zeroed, cfg=1.0))
    pair = {"conditioning_to": labels([3], NULL), "conditioning_from": zeroed}
    mixed = run("ConditioningAverage", **pair, conditioning_to_strength=0.01)[0]
    almost = ksampler(model, positive=mixed, cfg=1.0)
    assert seen["encoder"] == [2] * 10, "a mix is grounded as long as something of a class is in it"
    weights = torch.zeros(2, NULL + 1)
    weights[:, 3], weights[:, NULL] = 0.01, 0.99
    options = {"noise": noise(), "steps": 10, "solver": "euler", "cfg": 1.0}
    close(almost, core().sample(core_model(), weights, **options), 1e-5)


def test_a_list_of_classes():
    model = pixeldit2()
    positive, null = run("PixelDiTClassLabel", model=model, class_name="0", classes="1, 4")
    both = node(model, positive=positive, negative=null)[0]
    assert torch.equal(both, node(model)[0]) and torch.equal(both, node(model, negative=None)[0])
    for index, label in enumerate(CLASSES):
        one = node(model, positive=labels([label], NULL), batch_size=2)[0]
        close(both[index], one[index], 1.1 / 255)
    assert module("nodes.host.routes")._class_list("pixeldit2.safetensors") == ["0", "1", "2", "3", "4"]


def test_guidance_patches_and_cfg_plus_plus():
    for scale in SCALES:
        model = guided(scale)
        patched = run("PixelDiTCFGSchedule", model=model, curve="linear", end_cfg=1.0)[0]
        patched = run("PixelDiTCFGRescale", model=patched, factor=0.7)[0]
        cfg = core().cfg_function(core().cfg_schedule("linear", 2.5, 1.0), rescale=0.7)
        close(ksampler(patched), expected(scale, cfg=cfg), 1e-5)
        close(custom(patched, "heun_exact"), expected(scale, cfg=cfg, solver="heun_exact"), 1e-5)
        recorded, calls = record_calls(model)
        assert torch.isfinite(ksampler(recorded, sampler_name="euler_cfg_pp", cfg=1.2)).all()
        assert [len(call["x"]) for call in calls] == [2, 2, *[4] * 7, 2]


def test_settings_by_name():
    small, large = pixeldit2(), pixeldit2(noise_scale=2.0, single_silu_cond=True)
    for model, name, size in ((small, "pixeldit2-256", 256), (large, "pixeldit2-512", 512)):
        settings = core().SETTINGS[name]
        (low, high), solver = settings.cfg_interval, settings.solver
        options = {"positive": labels([1], NULL), "batch_size": 1}
        named = node(model, settings=name, **options)
        text = f"50 steps heun_exact, cfg {settings.cfg:g}, timeshift 1, interval {low:g} to {high:g}, 24 x 16"
        assert named[3] == text
        values = {"steps": 50, "solver": solver, "cfg": settings.cfg, "timeshift": 1.0}
        same = node(model, **options, **values, cfg_interval_start=low, cfg_interval_end=high)
        assert torch.equal(named[0], same[0])
        spec = model.model.pixeldit
        assert spec.default_size == (size, size) and spec.settings_for(None) == settings
    with pytest.raises(ValueError, match="no settings in its metadata"):
        node(small, settings="checkpoint default")
    assert "another kind of model" in _notes(small, "imagenet512")
    assert "another kind of model" not in _notes(small, "pixeldit2-512")


def _notes(model, name):
    request = module("nodes.host.request")
    return "\n".join(request.remarks(model.model.pixeldit, name, (16, 24), ([], [])))


def test_scheduler_and_previews():
    model = pixeldit2(noise_scale=2.0)
    sigmas = run("PixelDiTScheduler", model=model, steps=50)[0]
    close(sigmas, torch.linspace(1, 0, 51), 1e-6)
    import comfy.utils

    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **more: seen.append(preview))
    from comfy.cli_args import LatentPreviewMethod, args

    before, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        node(model, positive=labels([1], NULL), batch_size=1)
    finally:
        args.preview_method = before
        comfy.utils.set_progress_bar_global_hook(None)
    estimates = node(model, positive=labels([1], NULL), batch_size=1, trajectory_frames=100)[2]
    assert len(seen) == 10 and seen[0][1].size == (24, 16)
    first = torch.frombuffer(bytearray(seen[0][1].tobytes()), dtype=torch.uint8).view(16, 24, 3).float() / 255
    close(first, estimates[0], 2.01 / 255)  # a preview is the estimate of the image, whatever the noise


def test_sizes_that_are_no_multiple_of_the_patch():
    model = pixeldit2(noise_scale=2.0)
    made = ksampler(model, latent_image=empty((2, 3, 13, 21)))
    assert made.shape == (2, 3, 13, 21) and torch.isfinite(made).all()
    with pytest.raises(ValueError, match="nearest that does is 24 x 16"):
        node(model, width=23, height=16)
