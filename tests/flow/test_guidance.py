"""Guidance strategies against the reference program's data: functions, one network call, whole trajectories."""

import math

import pytest
import torch
from helpers import randn, relative_l2
from pixelhdm_cases import find, load
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc
from pixeldit_core.flow.guidance import CURVES, guided_velocity, match_contrast
from pixeldit_core.flow.solvers import euler, heun_exact
from pixeldit_core.sampling import condition_velocities

TRAJECTORIES = ("22_cfg_trajectories", "23_cfg_trajectories_heun")
# What a start moved by 1e-6 changes in all states, relative L2: see `sensitivity.py` for what follows from it
MEASURED = {
    "22_cfg_trajectories": {
        "standard": 3.0e-5,
        "rescaled": 1.1e-5,
        "interval": 1.9e-5,
        "interval_rescaled": 6.5e-6,
        "perplexity": 4.7e-6,
        "schedule_cosine": 2.0e-5,
    },
    "23_cfg_trajectories_heun": {
        "standard": 4.0e-6,
        "rescaled": 5.3e-6,
        "interval": 3.1e-6,
        "interval_rescaled": 2.4e-6,
        "perplexity": 1.3e-6,
        "schedule_cosine": 1.8e-6,
    },
}
RUNS = ("standard", "rescaled", "interval", "interval_rescaled", "perplexity", "schedule_cosine")


def named(entry):
    """A strategy of the reference; its interval is half open, ours is not: decided by the time here."""
    strategy = pc.cfg_function(
        entry["guidance_scale"], rescale=entry.get("rescale_factor", 0.0), temperature=entry.get("temperature")
    )
    if entry["strategy"] != "interval":
        return strategy
    inside = entry["interval_start"] <= entry["t"] < entry["interval_end"]
    assert inside == entry["applied"]
    return strategy if inside else lambda v_cond, v_null, t: v_cond


@pytest.mark.golden
def test_every_function_of_the_reference():
    case = find("20_cfg_functions")
    v_cond, v_null = case.inputs["x_cond"], case.inputs["x_uncond"]
    assert {entry["key"] for entry in case.case["strategies"]} == set(case.outputs)
    tolerance = case.case["recommended_tolerance"]["rel_l2"]
    for entry in case.case["strategies"]:
        guided = named(entry)(v_cond, v_null, entry.get("t", 0.5))
        assert relative_l2(guided, case.outputs[entry["key"]]) < tolerance, entry["key"]


@pytest.mark.golden
def test_every_schedule_of_the_reference():
    case = find("20_cfg_functions").case
    scheduler = case["scheduler"]
    assert set(scheduler["t_to_scale"]) == set(CURVES)
    for kind, pairs in scheduler["t_to_scale"].items():
        scale = pc.cfg_schedule(kind, scheduler["max_scale"], scheduler["min_scale"])
        for t, expected in pairs:
            assert scale(t) == pytest.approx(expected, rel=1e-12)
    sequence = case["guidance_scale_sequence"]
    for kind, expected in sequence["values"].items():
        scale = pc.cfg_schedule(kind, sequence["start_scale"], sequence["end_scale"])
        times = torch.linspace(0, 1, sequence["num_steps"]).tolist()
        assert [scale(t) for t in times] == pytest.approx(expected, rel=1e-6)


def conditions(inputs):
    """(text, mask, pooled) with the text and without."""
    return tuple(
        tuple(inputs[prefix + name] for name in ("text_embed", "text_mask", "pooled_text_embed"))
        for prefix in ("", "null_")
    )


@pytest.mark.golden
def test_one_call_of_the_network():
    """The reference's wrapper gives the null branch the mask and the pooled vector of the text; `apart` does not."""
    case = find("21_cfg_wrapper")
    network = load(case)
    (text, mask, pooled), (null_text, null_mask, null_pooled) = conditions(case.inputs)
    x, time = case.inputs["x_t"], case.inputs["t"]
    v_cond, v_null = network(x, time, text, mask, pooled), network(x, time, null_text, mask, pooled)
    apart = network(x, time, null_text, null_mask, null_pooled)
    scale, limits = case.case["guidance_scale"], case.case["scheduler"]
    results = {
        "standard": pc.cfg_function(scale)(v_cond, v_null, 0.0),
        "rescaled": pc.cfg_function(scale, rescale=case.case["rescale_factor"])(v_cond, v_null, 0.0),
        "perplexity": pc.cfg_function(scale, temperature=1.0)(v_cond, v_null, 0.0),
        "scale1_cond_only": pc.cfg_function(1.0)(v_cond, v_null, 0.0),
        "forward_with_cfg": pc.cfg_function(scale)(v_cond, apart, 0.0),
    }
    for kind in ("linear", "cosine", "quadratic"):
        scheduled = pc.cfg_function(pc.cfg_schedule(kind, limits["max_scale"], limits["min_scale"]))
        results[f"sched_{kind}"] = scheduled(v_cond, v_null, time[0].item())
    assert set(results) == set(case.outputs)
    for key, value in results.items():
        assert relative_l2(value, case.outputs[key]) < case.case["recommended_tolerance"]["rel_l2"], key


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.golden
def test_trajectories(name, run):
    case = find(name)
    network = load(case)
    settings, scale = case.case, case.case["guidance_scale"]
    limits = settings["schedule_cosine"]
    cfg = {
        "perplexity": pc.cfg_function(scale, temperature=settings["perplexity_temperature"]),
        "schedule_cosine": pc.cfg_function(pc.cfg_schedule("cosine", limits["max_scale"], limits["min_scale"])),
    }.get(run, pc.cfg_function(scale, rescale=settings["rescale_factor"] if run.endswith("rescaled") else 0.0))
    steps, eps = settings["sampler"]["num_steps"], settings["sampler"]["t_eps"]
    times = torch.linspace(eps, 1 - eps, steps + 1)
    # no time of these grids lies on a limit, where the reference's half open interval and ours differ
    interval = tuple(settings["interval"]) if run.startswith("interval") else (0.0, 1.0)

    def velocity(x, t, condition):
        return network(x, torch.full((len(x),), t), *condition)

    start, expected = case.inputs["z_0"], case.outputs[f"trajectory_{run}"]
    solve = {"euler": euler, "heun": heun_exact}[settings["sampler"]["method"]]
    guided = guided_velocity(*condition_velocities(velocity, *conditions(case.inputs)), cfg, interval)
    assert torch.equal(start, expected[0]) and len(expected) == steps + 1
    for i in range(steps):  # outputs are not recorded: a step from each recorded state to the next holds them
        assert relative_l2(solve(guided, expected[i], times[i : i + 2]), expected[i + 1]) < 2e-5

    def states(start):
        reached = []
        solve(guided, start, times, lambda i, t, x, v: reached.append(x.clone()))
        return torch.stack(reached)

    here = states(start)
    tolerance = allowed(MEASURED[name][run], settings["recommended_tolerance"]["rel_l2"])
    for state, reference in zip(here, expected[1:], strict=True):
        assert relative_l2(state, reference) < tolerance
    check_measured(max(relative_l2(states(moved(start, seed)), here) for seed in range(2)), MEASURED[name][run])


def test_sample_takes_them(golden):
    model, seen = pc.load_checkpoint(golden("c2i_sampler_net").folder / "checkpoint.ckpt"), []

    def scale(t):
        seen.append(t)
        return 3.0

    options = {"size": (16, 16), "steps": 10, "solver": "euler", "timeshift": 1.0, "cfg_interval": (0.2, 0.8)}
    both = {"cond": torch.tensor([3, 7]), "seeds": [1, 2], **options}
    plain = pc.sample(model, cfg=3.0, **both)
    assert torch.equal(pc.sample(model, cfg=pc.cfg_function(scale), **both), plain)
    assert seen == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    rescaled = pc.sample(model, cfg=pc.cfg_function(scale, rescale=0.7), **both)
    assert relative_l2(rescaled, plain) > 1e-3
    alone = pc.sample(model, torch.tensor([7]), seeds=2, cfg=pc.cfg_function(3.0, rescale=0.7), **options)
    torch.testing.assert_close(rescaled[1:], alone)


def test_contrast_is_that_of_the_condition_image_by_image():
    v_cond, guided = randn(3, 3, 8, 8), randn(3, 3, 8, 8, seed=2) * torch.tensor([0.5, 2.0, 9.0]).view(3, 1, 1, 1)
    whole = match_contrast(guided, v_cond, 1.0)
    torch.testing.assert_close(whole.flatten(1).std(1), v_cond.flatten(1).std(1))
    torch.testing.assert_close(match_contrast(guided, v_cond, 0.25), 0.25 * whole + 0.75 * guided)
    low = match_contrast(guided.bfloat16(), v_cond.bfloat16(), 1.0)
    assert low.dtype == torch.bfloat16 and relative_l2(low.float(), whole) < 0.01
    # a sum of squares would not fit into float16
    large = match_contrast((guided * 1e3).half(), (v_cond * 1e3).half(), 1.0)
    assert relative_l2(large.float(), whole * 1e3) < 0.01


def test_any_number_of_axes_and_half_precision():
    for shape in ((2, 3, 4, 8, 8), (2, 60)):
        v_cond, v_null = randn(*shape), randn(*shape, seed=2)
        every = pc.cfg_function(pc.cfg_schedule("linear", 4.0), rescale=0.5, temperature=2.0)
        exact = every(v_cond, v_null, 0.25)
        low = every(v_cond.bfloat16(), v_null.bfloat16(), 0.25)
        assert low.dtype == torch.bfloat16 and relative_l2(low.float(), exact) < 0.02


def test_perplexity_weakens_what_is_far_apart():
    v_null = torch.zeros(2, 3, 4, 4)
    v_cond = torch.tensor([0.0, 4.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    guided = pc.cfg_function(2.0, temperature=1.0)(v_cond, v_null, 0.5)
    torch.testing.assert_close(guided, v_cond * 2.0 / (1.0 + math.exp(4.0)))


def test_schedules_end_exactly_at_their_limits():
    for kind in CURVES:
        scale = pc.cfg_schedule(kind, 5.0)
        assert scale(0.0) == 5.0
        assert scale(1.0) == (5.0 if kind == "constant" else 1.0)


@pytest.mark.parametrize("make, words", [
    (lambda: pc.cfg_schedule("cubic", 3.0), '"cubic" is not known; there are constant, linear, cosine, quadratic'),
    (lambda: pc.cfg_function(3.0, rescale=1.1), "rescale factor is 1.1"),
    (lambda: pc.cfg_function(3.0, rescale=-0.1), "from 0 .off. to 1"),
    (lambda: pc.cfg_function(3.0, rescale=math.nan), "rescale factor is nan"),
    (lambda: pc.cfg_function(3.0, temperature=0.0), "temperature is 0.0; it must be above 0"),
    (lambda: pc.cfg_function(3.0, temperature=math.nan), "temperature is nan"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
