"""Rescaled and scheduled guidance: every way to sample gives what the core gives, and no other guider notices."""

import re
import sys

import pytest
import text_model
import tiny_t2i
import torch
from class_model import CLASSES, SHAPE, core_run, custom, guided, ksampler, noise, pixeldit
from kit import close, core, empty, labels, load_tiny, record_calls, run

SHAPES = ("linear", "cosine", "quadratic")


def rescaled(model, factor=0.7):
    return run("PixelDiTCFGRescale", model=model, factor=factor)[0]


def scheduled(model, shape="cosine", end=1.0):
    return run("PixelDiTCFGSchedule", model=model, curve=shape, end_cfg=end)[0]


def in_core(factor=0.0, shape="constant", end=1.0, cfg=2.5):
    return core().cfg_function(core().cfg_schedule(shape, cfg, end), rescale=factor)


def test_ksampler_gives_the_cores_result():
    plain = ksampler(guided(load_tiny()))
    for factor in (0.0, 0.4, 1.0):
        _, x, _ = core_run("euler", cfg=in_core(factor))
        close(ksampler(rescaled(guided(load_tiny()), factor)), x, 1e-4)
        assert factor == 0 or (x - plain).abs().max() > 1e-2, "rescaling matters"
    for shape in SHAPES:
        for end in (1.0, 4.0):
            _, x, _ = core_run("euler", cfg=in_core(shape=shape, end=end))
            close(ksampler(scheduled(guided(load_tiny()), shape, end)), x, 1e-4)
            assert (x - plain).abs().max() > 1e-2, "the schedule matters"


def test_every_solver_in_the_sampler_node_and_sampler_custom_advanced():
    def both(model):
        return rescaled(scheduled(model, "linear"))

    for solver in core().SOLVERS:
        model, x, _ = core_run(solver, cfg=in_core(0.7, "linear"))
        close(custom(guided(both(load_tiny())), solver), x, 1e-4)
        picture = (pixeldit(both(load_tiny()), solver=solver) * 255).byte()
        # the states agree to 1e-4; within that a value may fall on either side of the limit between two levels
        low, high = (core().to_uint8(model, x + shift) for shift in (-1e-4, 1e-4))
        assert ((low <= picture) & (picture <= high)).all(), f"{solver}: pictures differ"


def test_text_to_image():
    model = rescaled(scheduled(tiny_t2i.ours(), end=1.5))
    sigmas = run("PixelDiTScheduler", model=model, steps=6, timeshift=4.0)[0]
    cfg = in_core(0.7, "cosine", 1.5, cfg=2.75)
    for solver in ("euler", "flow_dpmpp_2m"):
        _, x = text_model.core_run(solver, start=sigmas[0] * text_model.noise(), timeshift=4.0, cfg=cfg)
        close(text_model.custom(model, solver, text_model.noise(), sigmas), x, 1e-4)


def test_every_order_of_the_three_patches_is_the_same():
    import itertools

    _, x, _ = core_run("euler", cfg=in_core(0.7, "cosine"))
    for order in itertools.permutations((guided, rescaled, scheduled)):
        model, calls = record_calls(load_tiny())
        for patch in order:
            model = patch(model)
        close(ksampler(model), x, 1e-4)
        rows = [len(call["x"]) for call in calls]
        assert rows == [2, 2, 4, 4, 4, 4, 4, 4, 4, 2], f"rows {rows}"


def test_a_scale_of_1_costs_no_null_pass():
    for patch in (rescaled, scheduled):
        model, calls = record_calls(patch(load_tiny()))
        result = ksampler(model, cfg=1.0)
        assert [len(call["x"]) for call in calls] == [2] * 10, "no guidance, no null pass"
        assert torch.equal(result, ksampler(load_tiny(), cfg=1.0)), "a cfg of 1 stays unguided"
    outside = ksampler(load_tiny(), cfg=1.0)
    for model in (rescaled(guided(load_tiny(), 0.91, 1.0)), guided(rescaled(load_tiny()), 0.91, 1.0)):
        assert torch.equal(ksampler(model), outside), "nothing is done outside of the interval"
    model, calls = record_calls(rescaled(scheduled(load_tiny(), "linear", 0.0)))
    result = ksampler(model, cfg=2.0)
    rows = [len(call["x"]) for call in calls]
    assert rows == [4] * 5 + [2] + [4] * 4, f"the scale 2 - 2t is 1 at one half: {rows}"
    assert torch.isfinite(result).all()


def test_the_last_of_each_counts_and_the_model_stays():
    model = load_tiny()
    plain = ksampler(model)
    assert torch.equal(ksampler(rescaled(rescaled(model, 1.0), 0.3)), ksampler(rescaled(model, 0.3)))
    assert torch.equal(ksampler(scheduled(scheduled(model, end=3.0))), ksampler(scheduled(model)))
    assert torch.equal(ksampler(model), plain), "a patch is on its clone alone"
    by_host = run("RescaleCFG", model=rescaled(model), multiplier=0.5)[0]
    assert torch.equal(ksampler(by_host), ksampler(run("RescaleCFG", model=model, multiplier=0.5)[0]))


def test_the_guiders_own_scale_comes_back():
    guider = run("CFGGuider", model=scheduled(load_tiny()), positive=labels([3]), negative=labels([10]), cfg=2.5)[0]
    inputs = {
        "noise": run("RandomNoise", noise_seed=5)[0],
        "sampler": run("PixelDiTSolver", solver="euler")[0],
        "sigmas": run("PixelDiTScheduler", model=load_tiny(), steps=10)[0],
        "latent_image": empty((1, 3, 16, 16)),
    }
    first, second = (run("SamplerCustomAdvanced", guider=guider, **inputs)[0]["samples"] for _ in range(2))
    assert guider.cfg == 2.5 and torch.equal(first, second)


def test_guiders_without_a_single_scale_are_not_affected():
    """Also not in the half of their guidance that asks the host to combine."""
    sigmas = run("PixelDiTScheduler", model=load_tiny(), steps=10)[0]
    conditions = {"cond1": labels(CLASSES), "cond2": labels([5]), "negative": labels([10])}

    def sample(guider):
        return run(
            "SamplerCustomAdvanced",
            noise=run("RandomNoise", noise_seed=5)[0],
            guider=guider,
            sampler=run("PixelDiTSolver", solver="euler")[0],
            sigmas=sigmas,
            latent_image=empty(SHAPE),
        )[0]["samples"]

    def dual(model, style):
        scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 2.0}
        return sample(run("DualCFGGuider", model=model, style=style, **conditions, **scales)[0])

    for patch in (rescaled, scheduled):
        for style in ("regular", "nested"):
            assert torch.equal(dual(patch(load_tiny()), style), dual(load_tiny(), style)), style
        models = patch(load_tiny()), load_tiny()
        basic = [run("BasicGuider", model=model, conditioning=labels(CLASSES))[0] for model in models]
        assert torch.equal(*map(sample, basic)), "BasicGuider"


def test_a_model_that_is_not_ours():
    from foreign import foreign_model

    text = {"positive": [[torch.zeros(1, 1, 4), {}]], "negative": [[torch.ones(1, 1, 4), {}]]}
    close(ksampler(rescaled(foreign_model()), **text), by_hand(foreign_model(), rescale=0.7), 1e-5)
    close(ksampler(scheduled(foreign_model(), "quadratic"), **text), by_hand(foreign_model(), end=1.0), 1e-5)


def by_hand(model, rescale=0.0, end=2.5):
    """Ten Euler steps, written out."""
    x = noise()
    for step in range(10):
        t = step / 10
        cond, null = (model.model.diffusion_model.velocity(x, 1 - t, shift) for shift in (0.0, 1.0))
        v = null + (2.5 - (2.5 - end) * t**2) * (cond - null)
        for image in range(len(x)):
            v[image] *= 1 - rescale + rescale * cond[image].std() / v[image].std()
        x = x - 0.1 * v
    return x


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=re.escape("rescale factor is 1.5")):
        rescaled(load_tiny(), 1.5)
    with pytest.raises(ValueError, match='schedule "cubic"'):
        scheduled(load_tiny(), "cubic")


def test_our_solvers_never_wait_for_the_device_to_read_the_time(monkeypatch):
    """ComfyUI's own samplers do once in a prediction, however many patches there are."""
    reads, original = [], torch.Tensor.__float__

    def read(tensor):
        if sys._getframe(1).f_code.co_filename.endswith("guidance.py"):
            reads.append(tensor)
        return original(tensor)

    monkeypatch.setattr(torch.Tensor, "__float__", read)
    model = rescaled(scheduled(guided(load_tiny())))
    pixeldit(model)
    custom(model)
    assert len(reads) == 0
    ksampler(model)
    assert len(reads) == 10
