"""Text-to-image: every way to sample gives the core's images."""

import pytest
import tiny_t2i
import torch
from kit import (
    close,
    core,
    empty,
    golden,
    golden_folder,
    load,
    record_calls,
    reference_processor,
    run,
    texts,
)
from text_model import SETTINGS, SHAPE, core_run, custom, ksampler, noise, sampler


def test_ksampler_gives_the_cores_result():
    import comfy.samplers

    model = tiny_t2i.ours()
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", SETTINGS["steps"])
    guided = run("PixelDiTCFGInterval", model=model, start=0.0, end=1.0)[0]
    _, x = core_run("euler", times=1 - sigmas)
    close(ksampler(guided), x, 1e-4)


def test_every_solver_and_the_grid_through_sampler_custom_advanced():
    model = tiny_t2i.ours()
    sigmas = run("PixelDiTScheduler", model=model, steps=SETTINGS["steps"], timeshift=4.0)[0]
    for solver in core().SOLVERS:
        _, x = core_run(solver, start=sigmas[0] * noise(), timeshift=4.0)
        close(custom(model, solver, noise(), sigmas), x, 1e-4)


def test_sampler_node_gives_the_cores_uint8_image():
    for solver in core().SOLVERS:
        model, x = core_run(solver, timeshift=4.0)
        picture = sampler(tiny_t2i.ours(), solver=solver, timeshift=4.0)
        saved = (picture * 255).byte()  # SaveImage truncates
        assert torch.equal(saved, (picture * 255).round().byte()), "a level is not whole"
        # the states agree to 1e-4; within that a value may fall on either side of the limit between two levels
        low, high = (core().to_uint8(model, x + shift) for shift in (-1e-4, 1e-4))
        assert ((low <= saved) & (saved <= high)).all(), f"{solver}: pictures differ"
        assert (low == high).float().mean() > 0.9, "the limits say something"


def test_the_published_runs():
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
        assert rows == [count * (2 if flag else 1) for flag in outputs["guided"].tolist()], f"{name}: {rows}"


def test_runs_recorded_with_comfyuis_own_samplers():
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


def test_automatic_timeshift_follows_the_size():
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


def test_texts_of_different_length_are_two_calls():
    """A shorter negative is neither padded nor repeated: positions and number of tokens matter."""
    model, calls = record_calls(tiny_t2i.ours())
    made = sampler(model, negative=texts(4, seed=2), batch_size=1, timeshift=4.0)
    assert [len(call["x"]) for call in calls] == [1] * 12, "two calls for each of six guided steps"
    spec = tiny_t2i.core_model()
    cond, null = (core().text_condition(spec, entry[0][0]) for entry in (texts(seed=1), texts(4, seed=2)))
    x = core().sample(
        spec,
        cond,
        null,
        noise=noise((1, *SHAPE[1:])),
        timeshift=4.0,
        solver="flow_dpmpp_2m",
        cfg_interval=(0, 1),
        **SETTINGS,
    )
    assert ((made * 255).round() - core().to_uint8(spec, x)).abs().max() <= 1


def test_interval_skips_the_null_pass():
    model, calls = record_calls(tiny_t2i.ours())
    sampler(model, cfg_interval_start=0.2, cfg_interval_end=0.8, timeshift=1.0, batch_size=1)
    rows = [len(call["x"]) for call in calls]
    assert sum(rows) == 6 + sum(0.2 < 1 - float(call["sigma"][0]) < 0.8 for call in calls), str(rows)
    assert set(rows) == {1, 2}


def test_without_guidance_no_negative_is_needed():
    model = tiny_t2i.ours()
    assert torch.equal(sampler(model, negative=None, cfg=1.0), sampler(model, cfg=1.0))
    with pytest.raises(ValueError, match="PixelDiT Text Prompt has one"):
        sampler(model, negative=None)
