"""PixelDiT2's sampling against recorded runs of the published sampler, and both conventions."""

import pytest
import torch
from helpers import max_distance
from pixeldit2_cases import count_rows, find, load

import pixeldit_core as pc

pytestmark = pytest.mark.golden
TRAJECTORY = 1e-4
CASES = (
    "sample_euler_512_8",
    "sample_heun_256_20_edges",
    "sample_heun_256_50",
    "sample_heun_256_odd7",
    "sample_heun_512_10_edge",
    "sample_heun_512_24_noclamp",
    "sample_heun_512_50",
    "sample_heun_min0",
    "sample_heun_onestep",
)
RECORDED = tuple(name for name in CASES if not name.endswith(("_50", "_noclamp")))  # with outputs of the network
SOLVERS = {"heun": "heun_exact", "euler": "euler"}


def settings_of(case):
    """The recorded sampler settings as those of `pc.sample`; without the clamp it is the standard convention."""
    recorded = case.case["sampler_settings"]
    return {
        "steps": recorded["num_steps"],
        "solver": SOLVERS[case.case["sampler"]],
        "cfg": recorded["guidance"],
        "cfg_interval": (recorded["guidance_interval_min"], recorded["guidance_interval_max"]),
        "convention": "reference" if recorded["t_eps"] else "standard",
    }


def model_of(case):
    return load(case, noise_scale=case.case["sampler_settings"]["noise_scale"])


def trajectory(model, case, **others):
    """The final state, and every state from the scaled noise on."""
    states = []
    noise, labels = case.inputs["noise"], case.inputs["labels"]
    settings = settings_of(case) | others
    final = pc.sample(model, labels, noise=noise, on_step=lambda i, t, x, v: states.append(x.clone()), **settings)
    return final, torch.stack([noise * model.params.noise_scale, *states])


@pytest.mark.parametrize("name", CASES)
def test_published_trajectories(name):
    case = find(name)
    model = model_of(case)
    final, states = trajectory(model, case)
    assert max_distance(states, case.outputs["x_traj"]) <= TRAJECTORY
    assert max_distance(final, case.outputs["final"]) <= TRAJECTORY
    ours, theirs = pc.to_uint8(model, final).int(), case.outputs["final_uint8"].movedim(1, -1).int()
    assert (ours - theirs).abs().max() <= 1


@pytest.mark.parametrize("name", CASES)
def test_times_guidance_and_rows_of_every_call(name):
    """Guided: one call of [null, ungrounded; class, grounded]. Else one row per image. The encoder sees only its."""
    case = find(name)
    model, times, labels = model_of(case), [], []
    rows = count_rows(model)

    def note(_, arguments):
        times.append(arguments[1])
        labels.append(arguments[2])

    model.network.register_forward_pre_hook(note)
    trajectory(model, case)
    given, null = case.inputs["labels"], case.case["null_label"]
    guided, count = case.outputs["guided"].tolist(), len(given)
    assert len(guided) == case.case["calls"] and sum(guided) == case.case["guided_calls"]
    assert rows["network"] == [2 * count if both else count for both in guided]
    assert rows["encoder"] == [count] * len(guided)
    for both, time, label, expected in zip(guided, times, labels, case.outputs["net_t"], strict=True):
        assert max_distance(time, expected.expand(len(time))) <= 1e-7
        assert label.tolist() == ([null] * count if both else []) + given.tolist()


@pytest.mark.parametrize("name", RECORDED)
def test_every_step_starts_with_the_recorded_outputs(name):
    case = find(name)
    model, given = model_of(case), case.inputs["labels"]
    null = pc.null_condition(model, len(given))
    starts = slice(None, None, 2 if case.case["sampler"] == "heun" else 1)  # without the calls of correctors
    outputs = zip(*(case.outputs[key][starts] for key in ("net_t", "net_out_cond", "net_out_uncond")), strict=True)
    for x, (t, cond, uncond) in zip(case.outputs["x_traj"][:-1], outputs, strict=True):
        out_null, out_cond = model.network(torch.cat([x, x]), t, torch.cat([null, given])).chunk(2)
        assert max_distance(out_cond, cond) <= 2e-5 and max_distance(out_null, uncond) <= 2e-5


class Perfect:
    """Answers with the image, whatever it is asked."""

    def __init__(self, image):
        self.image = image

    def __call__(self, x, t, condition):
        return (self.image - x) / (1 - t)


LEFT = {20: 0.0, 21: 0.0023, 25: 0.0088, 50: 0.0171, 100: 0.0181}  # spec: pixeldit2, 6


@pytest.mark.parametrize("steps, left", LEFT.items())
def test_the_published_trajectory_keeps_some_noise_and_the_correct_one_none(steps, left):
    family = pc.FAMILIES["pixeldit2"]
    image, noise = (torch.full((1, 3, 4, 4), value, dtype=torch.float64) for value in (0.5, 1.0))
    for name, expected in (("standard", 0.0), ("reference", left)):
        rules = family.convention(name)
        velocity = rules.velocity(Perfect(image), 1.0)
        end = pc.SOLVERS["heun_exact"](lambda x, t, f=velocity: f(x, t, None), noise, rules.grid(steps))
        shares = (end - image) / (noise - image)
        assert shares.max().item() == pytest.approx(expected, abs=1e-4), name
