"""PixelHDM as a MODEL."""

import re

import pytest
import torch
from kit import (
    close,
    core,
    empty,
    golden,
    module,
    record_calls,
    run,
)
from other_families import HDM, checkpoint, core_image, pixelhdm, sampled, sampler_inputs, text, unit, within


def test_reference_trajectories():
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
        assert ((x - expected).norm() / expected.norm()) < 2e-4, "the published trajectory differs"


def test_pixelhdm_through_the_sampler_node():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    spec = module("nodes.host.spec").find_spec(model)
    parts = ("text_embed", "text_mask", "pooled_text_embed")
    one = {"positive": text(inputs, rows=slice(1)), "negative": text(inputs, "null_", slice(1)), "batch_size": 2}
    for solver in core().SOLVERS:
        settings = sampler_inputs(model, spec, width=16, height=12, cfg_interval_start=0.0, cfg_interval_end=1.0)
        picture = run("PixelDiTSampler", **{**settings, **one, "solver": solver})[0]
        core_model, x = core_image(
            checkpoint(HDM, "pixelhdm"),
            lambda model: core().text_condition(model, *(inputs[part][:1] for part in parts)),
            lambda model: core().text_condition(model, *(inputs[f"null_{part}"][:1] for part in parts)),
            unit(2, spec.params, (12, 16)),
            steps=5,
            solver=solver,
            cfg=2.0,
        )
        within(picture, core_model, x)


def test_texts_of_pixelhdm_travel_in_one_batch_and_times_stay_in_training():
    model, calls = record_calls(pixelhdm())
    _, inputs, _ = golden(HDM, "pixelhdm")
    cut = int(inputs["text_mask"][:1].sum())
    positive = text(inputs, rows=slice(1))
    short = [[positive[0][0][:, :cut], {**positive[0][1], "attention_mask": positive[0][1]["attention_mask"][:, :cut]}]]
    settings = {"seed": 1, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    settings |= {"negative": text(inputs, "null_", slice(1)), "latent_image": empty((1, 3, 12, 16))}
    long = run("KSampler", model=model, positive=positive, **settings)[0]["samples"]
    assert {len(call["x"]) for call in calls} == {2}
    calls.clear()
    cut_off = run("KSampler", model=model, positive=short, **settings)[0]["samples"]
    assert {len(call["x"]) for call in calls} == {2}, "texts of different length are one call"
    close(long, cut_off, 1e-4)
    seen = []
    network = model.model.diffusion_model.time_embed
    hook = network.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].clone()))
    run("KSampler", model=model, positive=positive, **settings)
    hook.remove()
    seen = torch.cat(seen)
    assert seen.min() >= 0.05 and seen.max() <= 0.95, f"{seen}"


def test_texts_without_mask_or_pooled_vector_are_completed():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    full = inputs["text_embed"][:1]
    spec = module("nodes.host.spec").find_spec(model)
    settings = sampler_inputs(model, spec, width=16, height=12, batch_size=1, cfg=1.0)
    bare = run("PixelDiTSampler", positive=[[full, {}]], **settings)[0]
    complete = [[full, {"attention_mask": torch.ones(1, full.shape[1]), "pooled_output": full[:, -1]}]]
    assert torch.equal(bare, run("PixelDiTSampler", positive=complete, **settings)[0])


def test_a_mask_of_zeros_is_no_text():
    model = pixelhdm()
    _, inputs, _ = golden(HDM, "pixelhdm")
    spec = module("nodes.host.spec").find_spec(model)
    settings = sampler_inputs(model, spec, width=16, height=12, batch_size=1, cfg=1.0)
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
    assert torch.isfinite(pictures[0]).all() and torch.equal(*pictures), "what the mask leaves out counts"


def test_pixelhdm_has_a_largest_size():
    model = pixelhdm()
    spec = module("nodes.host.spec").find_spec(model)
    (height, width), message = spec.family.size_limits(spec.params)[1], "does not fit the model, which generates"
    settings = sampler_inputs(model, spec, width=width + 4, height=height, batch_size=1)
    with pytest.raises(ValueError, match=re.escape(message)):
        run("PixelDiTSampler", positive=[[torch.zeros(1, 4, 32), {}]], **settings)
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    settings |= {name: [[torch.zeros(1, 4, 32), {}]] for name in ("positive", "negative")}
    large = empty((1, 3, height + 1, width))
    with pytest.raises(ValueError, match=re.escape(message)):
        run("KSampler", model=model, latent_image=large, **settings)
