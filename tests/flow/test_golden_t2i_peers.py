"""Text-to-image sampling against runs of other programs."""

import pytest
import torch
from helpers import close
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("reference_processor")]


def peer(golden, name):
    """A case of another program, its model, and its conditions."""
    case = golden(name, "peers")
    path, *_ = [*case.folder.glob("checkpoint.*"), *case.folder.glob("model/transformer/*.safetensors")]
    model = pc.load_checkpoint(path)
    texts = [case.inputs[key] for key in ("context", "y", "negative") if key in case.inputs]
    return case, model, *(pc.text_condition(model, text) for text in texts)


PEER = 1e-3  # what spec: layouts, section 10 suggests for their runs, at most


@pytest.mark.parametrize("name, run, cfg", [
    ("comfy-t2i-core", "euler", 4.0),
    ("comfy-t2i-core", "heun", 1.0),
    ("comfy-t2i-img2img", "img2img", 2.0),
])  # fmt: skip
def test_every_step_of_comfyui_on_its_own_states(golden, name, run, cfg):
    """The image that it saw in each recorded state, of which Heun's are those at the start of a step."""
    case, model, cond, null = peer(golden, name)
    times, states = 1 - case.outputs[f"{run}.sigmas"], case.outputs[f"{run}.x"]
    assert len(states) == len(times) - 1
    for x, t, expected in zip(states, times.tolist(), case.outputs[f"{run}.denoised"], strict=False):
        v = torch.lerp(model.velocity(x, t, null), model.velocity(x, t, cond), cfg)
        close(x + (1 - t) * v, expected, case.case["fp64_check"]["suggested_atol_velocity"])


# `measured`, here and below: what a start moved by 1e-6 changes in the result
@pytest.mark.parametrize("name, run, solver, cfg, edit, measured", [
    ("comfy-t2i-core", "heun", "heun_exact", 1.0, (), 4.1e-5),
    ("comfy-t2i-img2img", "img2img", "euler", 2.0, ("image",), 6.7e-6),
    ("comfy-t2i-img2img-inpaint", "inpaint", "euler", 3.0, ("image", "mask"), 5.7e-5),
])  # fmt: skip
def test_runs_of_comfyui(golden, name, run, solver, cfg, edit, measured):
    case, model, cond, null = peer(golden, name)
    given = {"image": case.inputs.get("latent"), "mask": case.inputs.get("mask")}
    settings = {"times": 1 - case.outputs[f"{run}.sigmas"], "solver": solver, "cfg": cfg}
    settings |= {key: given[key] for key in edit}
    start = case.inputs["noise"]
    x = pc.sample(model, cond, null, noise=start, **settings)
    close(x, case.outputs[f"{run}.result"], allowed(measured, PEER))
    others = [pc.sample(model, cond, null, noise=moved(start, seed), **settings) for seed in range(2)]
    check_measured(max((other - x).abs().max().item() for other in others), measured)


@pytest.mark.parametrize("name, cfg, measured", [
    ("comfy-t2i-core", 4.0, 1.5e-3),
    ("madtune-t2i", 3.5, 3.1e-4),
    ("madtune-t2i-modelst", 3.5, 3.1e-5),
])  # fmt: skip
def test_runs_of_others_that_guide_the_first_step_too(golden, name, cfg, measured):
    """Their first call is at sigma 1, outside of an interval from 0 to 1."""
    case, model, cond, null = peer(golden, name)
    times = 1 - case.outputs["euler.sigmas"]
    assert times[0] == 0 and not pc.is_guided(times[0], (0.0, 1.0))

    def run(start):
        both = lambda x, t: torch.lerp(model.velocity(x, t, null), model.velocity(x, t, cond), cfg)  # noqa: E731
        return pc.SOLVERS["euler"](both, start, times)

    start = case.inputs["noise"]
    x = run(start)
    close(x, case.outputs["euler.result"], allowed(measured, PEER))
    check_measured(max((run(moved(start, seed)) - x).abs().max().item() for seed in range(2)), measured)
