"""Every way to sample gives the core's own images."""

import pytest
import torch
from class_model import CLASSES, SETTINGS, by_hand, core_run, custom, guided, ksampler, pixeldit
from kit import close, core, empty, golden, labels, load_tiny, record_calls, run


def test_ksampler_gives_the_cores_trajectory():
    model, calls = record_calls(guided(load_tiny()))
    result = ksampler(model)
    _, x, states = core_run("euler")
    close(result, x, 1e-4)
    for call, state in zip(calls[1:], states[:-1], strict=True):
        close(call["x"][-2:], state, 1e-4)


def test_sampler_custom_advanced_gives_the_cores_trajectory_with_every_solver():
    for solver in core().SOLVERS:
        result = custom(guided(load_tiny()), solver)
        _, x, _ = core_run(solver)
        close(result, x, 1e-4)


def test_sampler_node_gives_the_cores_uint8_image():
    for solver in core().SOLVERS:
        picture = pixeldit(load_tiny(), solver=solver)
        model, x, _ = core_run(solver)
        expected = core().to_uint8(model, x)
        assert torch.equal((picture * 255).round().byte(), expected), f"{solver}: pictures differ"
        assert torch.equal((picture * 255).byte(), expected), "SaveImage truncates: levels must survive it"


def test_golden_boundary_case_through_the_sigma_domain():
    case, inputs, outputs = golden("c2i_sample_flowdpm_edge10")
    settings = case["sampler_settings"]
    assert settings["num_steps"] == 10 and settings["guidance_interval_min"] == 0.1
    model, calls = record_calls(guided(load_tiny(), 0.1, 0.9))
    samples = sample_from(model, inputs["noise"], case["labels"], settings)
    close(samples, outputs["final"], 1e-4)
    rows = [len(call["x"]) for call in calls]
    count = len(case["labels"])
    assert rows == [count * (2 if flag else 1) for flag in outputs["guided"].tolist()], f"rows {rows}"


def test_golden_shifted_case_through_the_sigma_domain():
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


def test_model_sampling_sd3_is_the_timeshift():
    shifted = run("ModelSamplingSD3", model=load_tiny(), shift=3.0)[0]
    _, x, _ = core_run("euler", timeshift=3.0)
    close(ksampler(guided(shifted)), x, 1e-4)
    model, x, _ = core_run("ab2", timeshift=3.0)
    automatic, explicit = pixeldit(shifted), pixeldit(load_tiny(), timeshift=3.0)
    assert torch.equal(automatic, explicit), "timeshift 0 takes the patched shift"
    assert torch.equal((explicit * 255).round().byte(), core().to_uint8(model, x))
    once = run("PixelDiTScheduler", model=shifted, steps=10, timeshift=2.0)[0]
    close(once, 1 - core().time_grid(model, 10, 2.0), 1e-6)  # never both


def test_automatic_timeshift_follows_the_size():
    model = load_tiny()
    large = run("PixelDiTScheduler", model=model, steps=10, latent=empty((1, 3, 512, 512)))[0]
    small = run("PixelDiTScheduler", model=model, steps=10, latent=empty((1, 3, 256, 256)))[0]
    close(large, run("PixelDiTScheduler", model=model, steps=10, timeshift=2.0)[0], 0)
    close(small, run("PixelDiTScheduler", model=model, steps=10, timeshift=1.0)[0], 0)


def test_cfg_interval_skips_the_null_pass():
    model, calls = record_calls(load_tiny())
    pixeldit(model, steps=100, positive=labels([3]))
    assert sum(len(call["x"]) for call in calls) == 179, "100 steps, interval 0.1 to 0.9: 79 * 2 + 21 rows"
    model, calls = record_calls(guided(load_tiny()))
    ksampler(model, steps=100)
    assert sum(len(call["x"]) for call in calls) == 2 * 179


def test_cfg_interval_on_a_model_that_is_not_ours():
    """A host flow model with nothing of ours in it; its guidance must follow the interval, and its cfg come back."""
    from foreign import foreign_model

    text = [[torch.zeros(1, 1, 4), {}]]
    model, calls = record_calls(guided(foreign_model(), 0.25, 0.85))
    result = ksampler(model, positive=text, negative=[[torch.ones(1, 1, 4), {}]])
    rows = [len(call["x"]) for call in calls]
    assert rows == [2, 2, 2, 4, 4, 4, 4, 4, 4, 2], f"rows {rows}"
    close(result, by_hand(foreign_model(), 0.25, 0.85), 1e-5)


def test_a_batch_has_one_class_per_image():
    both = pixeldit(load_tiny())
    for index, label in enumerate(CLASSES):
        one = run(
            "PixelDiTSampler", model=load_tiny(), positive=labels([label] * 2), seed=5, width=16, height=16, **SETTINGS
        )[0]
        close(both[index], one[index], 1.1 / 255)
    positive, null = run("PixelDiTClassLabel", model=load_tiny(), class_name="3", classes="3, 7")
    assert torch.equal(both, pixeldit(load_tiny(), positive=positive, negative=null))
    assert torch.equal(both, pixeldit(load_tiny(), positive=positive, negative=None)), "the null is automatic"
    assert len(pixeldit(load_tiny(), batch_size=5)) == 5


def test_same_seed_same_image():
    assert torch.equal(pixeldit(load_tiny()), pixeldit(load_tiny()))
    assert not torch.equal(pixeldit(load_tiny()), pixeldit(load_tiny(), seed=6))
    assert torch.equal(ksampler(load_tiny()), ksampler(load_tiny()))


def test_settings_by_name():
    model = load_tiny()
    with pytest.raises(ValueError, match="no settings"):
        pixeldit(model, settings="checkpoint default")
    named = pixeldit(model, settings="imagenet256-epoch320", steps=3, cfg=9.0)
    same = pixeldit(model, steps=100, solver="ab2", cfg=2.75, timeshift=1.0, settings="custom")
    assert torch.equal(named, same), "a settings takes the place of the settings"


def test_previews_and_progress_each_step():
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
    assert [entry[:2] for entry in seen] == [(step, 10) for step in range(1, 11)], str(seen)
    sizes = [entry[2][1].size for entry in seen]
    assert sizes == [(16, 16)] * 10, "a preview of full size each step"


def test_interrupt_in_the_middle():
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

    # main.py's hook looks for an interrupt at each report of progress
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
        assert 3 <= count <= 4, f"{count} calls"
    assert torch.equal(pixeldit(model), pixeldit(load_tiny())), "the next run is whole"
    comfy.utils.set_progress_bar_global_hook(None)


def test_nan_weights_are_reported_after_sampling():
    model = load_tiny()
    with torch.no_grad():
        model.model.diffusion_model.final_layer.linear.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        pixeldit(model)
    with pytest.raises(ValueError, match="not finite"):
        run("PixelDiTDecode", samples={"samples": ksampler(model)})
