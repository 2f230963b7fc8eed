"""PixelHDM's samplers against recorded runs: step by step, call by call."""

from itertools import pairwise

import pytest
import torch
from helpers import relative_l2
from pixelhdm_cases import OUTPUT, SOLVERS, check_sensitivity, condition, find, first, tolerance, trajectory

import pixeldit_core as pc

pytestmark = pytest.mark.golden
SAMPLERS = (
    "10_sampler_euler_cfg",
    "11_sampler_heun_cfg",
    "13_sampler_full_heun_cfg",
    "14_sampler_euler_nocfg",
    "15_sampler_heun_tstart",
)


def sampler_run(case, change=lambda noise: noise):
    """A recorded run of a sampler again, from its noise or a `change` of it."""
    model, settings = pc.load_checkpoint(case.checkpoint), case.case["sampler"]
    times = case.outputs["timesteps"]
    if settings["t_start"] is None:
        assert torch.equal(pc.time_grid(model, settings["num_steps"], convention="reference"), times)
    return trajectory(
        model,
        condition(model, case.inputs),
        condition(model, case.inputs, "null_") if "null_text_embed" in case.inputs else None,
        noise=change(first(case.inputs["z_0"])),
        times=times,
        solver=SOLVERS[settings["method"]],
        cfg=settings["guidance_scale"],
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_published_samplers(name):
    case = find(name)
    final, states, rows = sampler_run(case)
    assert relative_l2(final, first(case.outputs["final"])) < tolerance(case)
    assert relative_l2(states, first(case.outputs["trajectory"][1:])) < tolerance(case)
    assert sum(rows) == len(case.outputs["call_t"]) * len(final)  # ours has both branches in one call


def recorded_calls(case):
    """(state, time, the guided velocity, outputs of each branch) of every evaluation, from what is recorded.

    Heun's predicted points are not: they follow from the state, the time and the outputs before, in float32.
    """
    outputs, settings = case.outputs, case.case["sampler"]
    times, branches = outputs["timesteps"], 1 if settings["guidance_scale"] == 1 else 2
    calls = list(zip(outputs["call_t"].split(branches), outputs["call_v"].split(branches), strict=True))
    slope = None
    per_step = len(calls) // (len(times) - 1)
    assert per_step == {"euler": 1, "heun": 2, "dpm_pp": 1}[settings["method"]]
    for index, (t, v) in enumerate(calls):
        i, second = divmod(index, per_step)
        x = outputs["trajectory"][i]
        if second:
            x = x + slope * (times[i + 1] - times[i])
        slope = torch.lerp(v[0], v[-1], settings["guidance_scale"]) if branches == 2 else v[0]
        yield x, t[0], slope, v


@pytest.mark.parametrize("name", [*SAMPLERS, "12_sampler_dpmpp_cfg"])
def test_every_call_on_the_reference_s_own_trajectory(name):
    case = find(name)
    model = pc.load_checkpoint(case.checkpoint)
    for x, t, _, outputs in recorded_calls(case):
        branches = [condition(model, case.inputs)]
        if len(outputs) == 2:
            branches.insert(0, condition(model, case.inputs, "null_"))
        for text, expected in zip(branches, outputs, strict=True):
            assert relative_l2(model.network(x, t, *text), expected) < OUTPUT


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_solver_on_the_reference_s_own_outputs(name):
    """Recorded outputs in the place of a network: what is left to differ is the solver's arithmetic."""
    case = find(name)
    calls, states = recorded_calls(case), []

    def velocity(x, t):
        _, expected, slope, _ = next(calls)
        assert t == pytest.approx(expected[0].item(), abs=1e-6)
        return slope

    solve = pc.SOLVERS[SOLVERS[case.case["sampler"]["method"]]]
    solve(velocity, case.inputs["z_0"], case.outputs["timesteps"], lambda i, t, x, v: states.append(x.clone()))
    assert next(calls, None) is None
    assert relative_l2(torch.stack(states), case.outputs["trajectory"][1:]) < 1e-6


@pytest.mark.parametrize("name", SAMPLERS)
def test_sensitivity(name):
    """The numbers that the tolerances of whole trajectories follow from."""
    check_sensitivity(name, sampler_run)


def test_the_wrong_solver_of_the_authors_is_not_offered():
    """Their dpm_pp moves away from its estimate; with the roles of t and 1 - t put right it is flow_dpmpp_2m."""
    case = find("12_sampler_dpmpp_cfg")
    model, eps = pc.load_checkpoint(case.checkpoint), 0.05
    cond, null = condition(model, case.inputs), condition(model, case.inputs, "null_")
    z, before, lam_before = first(case.inputs["z_0"]), None, None
    times = case.outputs["timesteps"].tolist()
    scale = case.case["sampler"]["guidance_scale"]
    image = torch.full_like(z, 0.5)  # what a perfect network would see
    theirs = ours = torch.full_like(z, 2.0)
    for t, t_next in pairwise(times):
        with torch.inference_mode():
            v_null, v_cond = model.velocity(z, t, null), model.velocity(z, t, cond)
        v = torch.lerp(v_null, v_cond, scale)
        x, lam, lam_next = z + (1 - t) * v, logit(t, eps), logit(t_next, eps)
        target = x
        if before is not None:
            r = (lam - lam_before) / (lam_next - lam + 1e-8)
            target = x + r / (1 + r) * (x - before)
        a, b = t_next / (t + 1e-8), (1 - t_next) - (1 - t) * t_next / (t + 1e-8)
        z, before, lam_before = a * z + b * target, x, lam
        theirs = a * theirs + b * image
        ours = (1 - t_next) / (1 - t) * ours + (t_next - t * (1 - t_next) / (1 - t)) * image
    assert relative_l2(z, first(case.outputs["final"])) < tolerance(case)
    assert (theirs - 0.5).abs().min() > 20 and (ours - 0.5).abs().max() < 0.1
    right = pc.SOLVERS["flow_dpmpp_2m"](
        lambda x, t: (image - x) / (1 - t), torch.full_like(z, 2.0), torch.tensor(times)
    )
    assert torch.allclose(right, ours, atol=1e-5)
    assert "dpm_pp" not in pc.SOLVERS


def logit(t, eps):
    t = torch.tensor(min(max(t, eps), 1 - eps), dtype=torch.float64)
    return torch.logit(t).item()
