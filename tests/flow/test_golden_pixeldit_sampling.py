"""Sampling against recorded runs of the published samplers: step by step, call by call."""

import pytest
import torch
from helpers import close
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc
from pixeldit_core.flow.guidance import guided_velocity
from pixeldit_core.sampling import condition_velocities

pytestmark = pytest.mark.golden

SOLVERS = {"EulerSampler": "euler", "FlowDPMSolverSampler": "ab2", "HeunSampler": "heun"}
# What a start moved by 1e-6 changes, largest over the trajectory: (states, recorded slopes). From `test_sensitivity`,
# the largest of four moves and of AVX-512, AVX2 and plain kernels. `sensitivity.py` says what follows from it.
MEASURED = {
    "c2i_sample_euler_ts1": (7.5e-6, 3.0e-5),
    "c2i_sample_euler_ts2": (7.7e-6, 2.0e-5),
    "c2i_sample_flowdpm_edge10": (1.0e-5, 2.7e-5),
    "c2i_sample_flowdpm_laststep": (9.1e-6, 2.0e-5),
    "c2i_sample_flowdpm_onestep": (7.2e-6, 8.1e-6),
    "c2i_sample_flowdpm_ts1": (5.4e-5, 3.2e-4),
    "c2i_sample_flowdpm_ts2": (7.2e-6, 1.2e-5),
    "c2i_sample_heun_exact_ts2": (1.7e-5, 4.8e-5),
    "c2i_sample_heun_ts1": (3.9e-5, 1.2e-4),
}
OUTPUT = 2e-5  # a network output on a recorded state; 3e-6 is the most that any processor differed
SOLVED = 5e-6  # states that a solver makes of recorded outputs: some roundings of values up to 4


def settings(case):
    """The recorded sampler settings in the words of `pc.sample`."""
    recorded = dict(case.case["sampler_settings"])
    solver = SOLVERS[case.case["sampler"]] + ("_exact" if recorded.pop("exact_henu", False) else "")
    return {
        "steps": recorded.pop("num_steps"),
        "solver": solver,
        "cfg": recorded.pop("guidance"),
        "timeshift": recorded.pop("timeshift"),
        "cfg_interval": (recorded.pop("guidance_interval_min"), recorded.pop("guidance_interval_max")),
        **recorded,  # last_step, where it was set
    }


def tolerances(name):
    """Of states and of slopes."""
    return tuple(allowed(measured, suggested) for measured, suggested in zip(MEASURED[name], (5e-5, 2e-4), strict=True))


def recorded_velocities(case):
    """The guided velocity of every call, from the recorded outputs."""
    null, cond = case.outputs["net_out_uncond"], case.outputs["net_out_cond"]
    scale = case.case["sampler_settings"]["guidance"]
    guided = case.outputs["guided"].view(-1, 1, 1, 1, 1)
    return torch.where(guided, null + scale * (cond - null), cond)


def recorded_states(case):
    """The state of every call. A predicted point of Heun's is not recorded: it follows from what is, in float32."""
    times, states, slopes = case.outputs["timesteps"], case.outputs["x_traj"], recorded_velocities(case)
    solver = settings(case)["solver"]
    if not solver.startswith("heun"):
        return states[:-1]
    inputs, last = [], len(times) - 2
    for i in range(last + 1):
        if i == 0 or solver == "heun_exact":
            inputs.append(states[i])
        slope = slopes[len(inputs) - 1]  # of this state, or the one kept from the step before
        if i < last:
            inputs.append(states[i] + slope * (times[i + 1] - times[i]))
    return torch.stack(inputs)


def check_calls(calls, case, count):
    """Every call of the network: its time, its labels, and whether it was guided."""
    outputs = case.outputs
    assert len(calls) == len(outputs["net_t"]) == case.case["nfe_batches"]
    close(torch.stack([call.time[0] for call in calls]), outputs["net_t"], 1e-6)
    assert [call.rows == 2 * count for call in calls] == outputs["guided"].tolist()
    labels = case.inputs["labels"]
    null = torch.full_like(labels, case.case["null_label"])
    for call, guided in zip(calls, outputs["guided"].tolist(), strict=True):
        assert (call.time == call.time[0]).all()
        # guided: one call of [null; cond] rows; else the null branch is not evaluated
        assert torch.equal(call.labels, torch.cat([null, labels]) if guided else labels)


def check_pixels(model, final, case):
    """Within 1, and a hundredth of the values at most: those that lie where rounding turns."""
    difference = pc.to_uint8(model, final).int() - case.outputs["final_uint8"].movedim(1, -1).int()
    assert difference.abs().max() <= 1 and difference.count_nonzero() <= difference.numel() // 100


@pytest.mark.parametrize("name", MEASURED)
def test_every_call_on_the_reference_s_own_trajectory(golden, name):
    case = golden(name)
    outputs = case.outputs
    model = pc.load_checkpoint(case.checkpoint, weights="ema")
    labels = case.inputs["labels"]
    both = torch.cat([torch.full_like(labels, case.case["null_label"]), labels])
    states = recorded_states(case)
    assert len(states) == len(outputs["net_t"])
    for i, (x, t) in enumerate(zip(states, outputs["net_t"], strict=True)):
        output = model.network(torch.cat([x, x]), t.expand(len(both)), both)
        v_null, v_cond = output.chunk(2)
        close(v_null, outputs["net_out_uncond"][i], OUTPUT)
        close(v_cond, outputs["net_out_cond"][i], OUTPUT)
        close(model.network(x, t.expand(len(x)), labels), outputs["net_out_cond"][i], OUTPUT)


@pytest.mark.parametrize("name", MEASURED)
def test_every_solver_on_the_reference_s_own_outputs(golden, name):
    """Recorded outputs in the place of a network: what is left to differ is the solver's arithmetic."""
    case = golden(name)
    how, outputs = settings(case), case.outputs
    slopes, times, steps = iter(recorded_velocities(case)), [], []

    def velocity(x, t):
        times.append(t)
        return next(slopes)

    grid = pc.time_grid(pc.FAMILIES["pixeldit"], how["steps"], how["timeshift"], how.get("last_step"))
    solve = pc.SOLVERS[how["solver"]]
    final = solve(velocity, case.inputs["noise"], grid, lambda i, t, x, v: steps.append((x.clone(), v.clone())))
    assert next(slopes, None) is None
    close(torch.tensor(times), outputs["net_t"], 1e-6)
    close(torch.stack([x for x, _ in steps]), outputs["x_traj"][1:], SOLVED)
    close(torch.stack([v for _, v in steps]), outputs["v_traj"], SOLVED)
    close(final, outputs["final"], SOLVED)


def run(model, case, noise):
    """The result, the states, the velocities used for the steps, and the times of a run."""
    steps = []
    final = pc.sample(
        model,
        pc.class_condition(model, case.inputs["labels"]),
        noise=noise,
        on_step=lambda i, t, x, v: steps.append((i, t, x.clone(), v.clone())),
        **settings(case),
    )
    numbers, times, states, slopes = zip(*steps, strict=True)
    assert numbers == tuple(range(len(steps)))
    return final, torch.stack(states), torch.stack(slopes), torch.tensor(times)


@pytest.mark.parametrize("name", MEASURED)
def test_published_run(golden, calls, name):
    case = golden(name)
    outputs, how = case.outputs, settings(case)
    model = pc.load_checkpoint(case.checkpoint, weights="ema")
    network_calls = calls(model)
    final, states, slopes, times = run(model, case, case.inputs["noise"])
    of_states, of_slopes = tolerances(name)
    grid = pc.time_grid(model, how["steps"], how["timeshift"], how.get("last_step"))
    close(grid, outputs["timesteps"], 1e-6)
    close(times, outputs["timesteps"][1:], 1e-6)
    close(case.inputs["noise"], outputs["x_traj"][0], 0)
    close(states, outputs["x_traj"][1:], of_states)
    close(slopes, outputs["v_traj"], of_slopes)
    check_calls(network_calls, case, len(final))
    close(final, outputs["final"], of_states)
    check_pixels(model, final, case)


@pytest.mark.parametrize("name", MEASURED)
def test_sensitivity(golden, name):
    """The numbers that the tolerances of whole trajectories follow from."""
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, weights="ema")
    start = case.inputs["noise"]
    _, *here, _ = run(model, case, start)
    there = [run(model, case, moved(start, seed))[1:3] for seed in range(4)]
    for kind, measured in enumerate(MEASURED[name]):
        check_measured(max((other[kind] - here[kind]).abs().max().item() for other in there), measured)


@pytest.mark.parametrize("name", ["c2i_sample_flowdpm_edge10", "c2i_sample_flowdpm_ts2", "c2i_sample_heun_ts1"])
def test_published_run_through_the_sigma_domain(golden, calls, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    network_calls = calls(model)
    how = settings(case)
    sigmas = 1 - pc.time_grid(model, how["steps"], how["timeshift"])  # float32, as a SIGMAS in ComfyUI
    final = pc.sample(
        model,
        case.inputs["labels"],
        noise=case.inputs["noise"],
        times=1 - sigmas,
        solver=how["solver"],
        cfg=how["cfg"],
        cfg_interval=how["cfg_interval"],
    )
    check_calls(network_calls, case, len(final))
    close(final, case.outputs["final"], tolerances(name)[0])
    check_pixels(model, final, case)


@pytest.mark.parametrize("name", ["c2i_sample_flowdpm_ts2", "c2i_sample_heun_exact_ts2"])
def test_solvers_alone_are_the_same(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    how = settings(case)
    labels = case.inputs["labels"]
    velocities = condition_velocities(model.velocity, labels, pc.null_condition(model, len(labels)))
    velocity = guided_velocity(*velocities, how["cfg"], how["cfg_interval"])
    times = pc.time_grid(model, how["steps"], how["timeshift"])
    close(pc.SOLVERS[how["solver"]](velocity, case.inputs["noise"], times), case.outputs["final"], tolerances(name)[0])


def test_both_conventions_are_the_same_for_the_official_models(golden):
    case = golden("c2i_sample_flowdpm_ts2")
    model = pc.load_checkpoint(case.checkpoint)
    runs = [
        pc.sample(model, case.inputs["labels"], noise=case.inputs["noise"], convention=convention, **settings(case))
        for convention in ("standard", "reference")
    ]
    assert torch.equal(*runs)
