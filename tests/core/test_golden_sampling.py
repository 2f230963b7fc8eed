"""Sampling against recorded runs of the published samplers: step by step, call by call."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.flow.guidance import guided_velocity
from pixeldit_core.sampling import condition_velocities

SOLVERS = {"EulerSampler": "euler", "FlowDPMSolverSampler": "ab2", "HeunSampler": "heun"}
CASES = [
    "c2i_sample_euler_ts1",
    "c2i_sample_euler_ts2",
    "c2i_sample_flowdpm_edge10",
    "c2i_sample_flowdpm_laststep",
    "c2i_sample_flowdpm_onestep",
    "c2i_sample_flowdpm_ts1",
    "c2i_sample_flowdpm_ts2",
    "c2i_sample_heun_exact_ts2",
    "c2i_sample_heun_ts1",
]


def settings(case):
    """The recorded sampler settings in the words of `pc.sample`."""
    told = dict(case.case["sampler_settings"])
    solver = SOLVERS[case.case["sampler"]] + ("_exact" if told.pop("exact_henu", False) else "")
    return {
        "steps": told.pop("num_steps"),
        "solver": solver,
        "cfg": told.pop("guidance"),
        "timeshift": told.pop("timeshift"),
        "cfg_interval": (told.pop("guidance_interval_min"), told.pop("guidance_interval_max")),
        **told,  # last_step, where it was set
    }


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def check_calls(calls, case, count):
    """Every call of the network: its time, whether it was guided, and what it gave."""
    outputs = case.outputs
    assert len(calls) == len(outputs["net_t"]) == case.case["nfe_batches"]
    close(torch.stack([call.time[0] for call in calls]), outputs["net_t"], 1e-6)
    assert [call.rows == 2 * count for call in calls] == outputs["guided"].tolist()
    labels = case.inputs["labels"]
    null = torch.full_like(labels, case.case["null_label"])
    for index, (call, guided) in enumerate(zip(calls, outputs["guided"].tolist(), strict=True)):
        assert (call.time == call.time[0]).all()
        if guided:  # one call of [null; cond] rows
            assert torch.equal(call.labels, torch.cat([null, labels]))
            v_null, v_cond = call.output.chunk(2)
            close(v_null, outputs["net_out_uncond"][index], 5e-5)
        else:  # the null branch is not evaluated
            assert torch.equal(call.labels, labels)
            v_cond = call.output
        close(v_cond, outputs["net_out_cond"][index], 5e-5)


@pytest.mark.parametrize("name", CASES)
def test_published_run(golden, calls, name):
    case = golden(name)
    outputs = case.outputs
    model = pc.load_checkpoint(case.checkpoint, weights="ema")
    made = calls(model)
    steps = []
    how = settings(case)
    final = pc.sample(
        model,
        pc.class_condition(model, case.inputs["labels"]),
        noise=case.inputs["noise"],
        on_step=lambda i, t, x, v: steps.append((i, t, x, v)),
        **how,
    )

    times = pc.time_grid(model, how["steps"], how["timeshift"], how.get("last_step"))
    close(times, outputs["timesteps"], 1e-6)
    assert [step[0] for step in steps] == list(range(how["steps"]))
    close(torch.tensor([step[1] for step in steps]), outputs["timesteps"][1:], 1e-6)
    close(case.inputs["noise"], outputs["x_traj"][0], 0)
    for i, _, x, v in steps:
        close(x, outputs["x_traj"][i + 1], 5e-5)
        close(v, outputs["v_traj"][i], 2e-4)
    check_calls(made, case, len(final))
    close(final, outputs["final"], 5e-5)
    assert torch.equal(pc.to_uint8(model, final), outputs["final_uint8"].movedim(1, -1))


@pytest.mark.parametrize("name", ["c2i_sample_flowdpm_edge10", "c2i_sample_flowdpm_ts2", "c2i_sample_heun_ts1"])
def test_published_run_through_the_sigma_domain(golden, calls, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    made = calls(model)
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
    check_calls(made, case, len(final))
    close(final, case.outputs["final"], 5e-5)
    difference = pc.to_uint8(model, final).int() - case.outputs["final_uint8"].movedim(1, -1).int()
    assert difference.abs().max() <= 1 and difference.count_nonzero() <= 2  # times differ in their last bit


@pytest.mark.parametrize("name", ["c2i_sample_flowdpm_ts2", "c2i_sample_heun_exact_ts2"])
def test_solvers_alone_are_the_same(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    how = settings(case)
    labels = case.inputs["labels"]
    velocities = condition_velocities(model.velocity, labels, pc.null_condition(model, len(labels)))
    velocity = guided_velocity(*velocities, how["cfg"], how["cfg_interval"])
    times = pc.time_grid(model, how["steps"], how["timeshift"])
    close(pc.SOLVERS[how["solver"]](velocity, case.inputs["noise"], times), case.outputs["final"], 5e-5)


def test_both_rules_are_the_same_for_the_official_models(golden):
    case = golden("c2i_sample_flowdpm_ts2")
    model = pc.load_checkpoint(case.checkpoint)
    runs = [
        pc.sample(model, case.inputs["labels"], noise=case.inputs["noise"], convention=convention, **settings(case))
        for convention in ("standard", "reference")
    ]
    assert torch.equal(*runs)
