"""The text-to-image model against the reference programs' data: network, grid, solver, published settings."""

import pytest
import torch
from helpers import close
from sensitivity import allowed, check_measured, moved

import pixeldit_core as pc
from pixeldit_core.flow.solvers import flow_dpmpp_2m
from pixeldit_core.flow.times import sigma_grid

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("reference_processor")]

UNUSED = ("num_text_blocks", "repa_encoder_index")  # of the official constructor, without effect on the network
FORWARD = ("t2i_forward_p4_16x12_longtext", "t2i_forward_p8_24x32_ddp", "t2i_forward_p16_32x32_fsdp")
# What a start moved by 1e-6 changes, largest over the trajectory, of states and of images that the flow leads to: from
# `test_sensitivity`, the largest of AVX-512, AVX2 and plain kernels. `sensitivity.py` says what follows from it.
SAMPLES = {
    "2steps": (1.5e-5, 2.9e-5),
    "cfg1": (1.3e-4, 1.3e-4),
    "shift1_interval": (1.9e-5, 2.1e-5),
    "shift3_interval": (7.7e-6, 7.9e-6),
    "shift4": (8.5e-6, 8.5e-6),
}
# The reference divides by 1 - s, 2.5e-4 at the first step, and its rounding is in the data: up to 5e-4 in states and
# 3e-3 in images (spec: official, section 6.3). On top of that comes what two processors differ.
NOISE, SUGGESTED = (5e-4, 3e-3), (2e-3, 1e-2)
# Plain kernels differ by 1.5e-4 in one of the tables: linspace rounds a share of almost 1 to its neighbor, 6e-8 away,
# a shift of 4 makes 2.4e-7 of that, and the network's time is 1000 times as much.
NETWORK_TIME = 2.5e-4


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}

    def keep(module, name, take=lambda arguments, result: result):
        module.register_forward_hook(lambda _, arguments, result: seen.update({name: take(arguments, result)}))

    first, last = network.patch_blocks[0], network.patch_blocks[-1]
    keep(network.s_embedder, "s_embed")
    keep(network.t_embedder, "t_emb")
    keep(network.y_embedder, "y_embed")
    for number, stream in enumerate(("img", "txt")):
        keep(first, f"block0_in_{stream}", lambda arguments, _, number=number: arguments[number])
        keep(first.attn, f"block0_attn_{stream}", lambda _, result, number=number: result[number])
        keep(first, f"block0_{stream}", lambda _, result, number=number: result[number])
        keep(last, f"block_last_{stream}", lambda _, result, number=number: result[number])
    keep(network.pixel_blocks[0], "pixel_embed", lambda arguments, _: arguments[0])
    keep(network.pixel_blocks[0], "s_cond", lambda arguments, _: arguments[1])
    keep(network.pixel_blocks[0].attn, "pixel_block0_attn")
    keep(network.pixel_blocks[0], "pixel_block0")
    return seen


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_every_intermediate(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, full_last_block=True)
    for key, value in case.case["config"].items():
        assert key in UNUSED or getattr(model.params, key) == value, key
    found = record(model.network)
    found["output"] = model.network(case.inputs["x"], case.inputs["t"], case.inputs["y"])
    others = {"output_with_mask", "output_if_ema_weights_were_used"}
    assert set(found) == set(case.outputs) - others
    for key, value in found.items():
        close(value, case.outputs[key], 2e-5, key)


@pytest.mark.parametrize("name", FORWARD)
def test_velocity_is_the_network_in_the_common_language(golden, name):
    """The authors' wrapper takes a mask and drops it, as our condition does."""
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    x, t = case.inputs["x"], 1 - case.inputs["t"] / 1000
    cond = pc.text_condition(model, case.inputs["y"], mask=case.inputs["mask"])
    velocity = model.velocity(x, t, cond)
    close(velocity, -case.outputs["output"], 1e-4)  # 1 - t / 1000 and back costs the time its last bits
    close(velocity, -case.outputs["output_with_mask"], 1e-4)
    assert torch.equal(velocity, model.velocity(x, t, pc.text_condition(model, case.inputs["y"])))


@pytest.mark.parametrize("weights, output", [
    ("auto", "output"),
    ("raw", "output"),
    ("ema", "output_if_ema_weights_were_used"),
])  # fmt: skip
def test_the_authors_take_the_raw_weights(golden, weights, output):
    case = golden("t2i_forward_p8_24x32_ddp")
    model = pc.load_checkpoint(case.checkpoint, weights=weights)
    assert model.spec.weights == ("ema" if weights == "ema" else "raw")
    close(model.network(case.inputs["x"], case.inputs["t"], case.inputs["y"]), case.outputs[output], 2e-5)
    assert (case.outputs["output"] - case.outputs["output_if_ema_weights_were_used"]).abs().max() > 0.1


def test_keys_and_parameter_count_are_the_published_ones(published_keys):
    model = pc.build_model("pixeldit_t2i", "PixelDiT-T2I")
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 1_302_470_787
    expected = published_keys("pixeldit-t2i-1300m-core")
    assert {key: list(value.shape) for key, value in model.network.state_dict().items()} == expected["keys"]
    assert expected["param_count"] == 1_302_470_787 and len(expected["keys"]) == 385


def settings(case):
    """The recorded sampler settings in the words of `pc.sample`."""
    told = case.case["sampler_settings"]
    low, high = told["interval_guidance"]  # in sigma = 1 - t
    return {
        "steps": told["steps"],
        "solver": "flow_dpmpp_2m",
        "cfg": told["cfg_scale"],
        "timeshift": told["flow_shift"],
        "cfg_interval": (1 - high, 1 - low),
    }


def conditions(model, case):
    mask = case.inputs["mask"]
    return (pc.text_condition(model, case.inputs[name], mask=mask) for name in ("y_cond", "y_uncond"))


def run(model, case, start):
    """The result, the states (the first included) and the images that each velocity leads to."""
    how, steps = settings(case), []
    final = pc.sample(
        model,
        *conditions(model, case),
        noise=start,
        on_step=lambda i, t, x, v: steps.append((i, t, x.clone(), v.clone())),
        **how,
    )
    times = pc.time_grid(model, how["steps"], how["timeshift"])
    assert [step[0] for step in steps] == list(range(how["steps"]))
    close(torch.tensor([step[1] for step in steps]), times[1:], 0)
    states = torch.stack([start, *(step[2] for step in steps)])
    assert torch.equal(final, states[-1])
    return final, states, images(states, times, [step[3] for step in steps])


def images(states, times, velocities):
    return torch.stack([x + (1 - t) * v for x, t, v in zip(states[:-1], times[:-1], velocities, strict=True)])


def tolerances(name):
    """Of states and of images."""
    numbers = zip(SAMPLES[name], NOISE, SUGGESTED, strict=True)
    return tuple(min(noise + allowed(measured, suggested), suggested) for measured, noise, suggested in numbers)


@pytest.mark.parametrize("name", SAMPLES)
def test_published_run(golden, calls, name):
    case = golden(f"t2i_sample_{name}")
    outputs, start, how = case.outputs, case.inputs["noise"], settings(case)
    model = pc.load_checkpoint(case.checkpoint)
    made = calls(model)
    final, *found = run(model, case, start)

    close(1 - pc.time_grid(model, how["steps"], how["timeshift"]), outputs["timesteps"], 1e-6)
    close(start, outputs["x_traj"][0], 0)
    for key, values, tolerance in zip(("x_traj", "x0_traj"), found, tolerances(name), strict=True):
        close(values, outputs[key], tolerance, key)
    assert [call.rows for call in made] == [len(start) * (1 + flag) for flag in outputs["guided"].tolist()]
    close(torch.stack([call.time[0] for call in made]), outputs["net_t"], NETWORK_TIME)
    close(final, outputs["final"], tolerances(name)[0])
    difference = pc.to_uint8(model, final).int() - outputs["final_uint8"].movedim(1, -1).int()
    # the reference's noise of 5e-4 is 0.06 of a level: that share of values may be rounded to the next
    assert difference.abs().max() <= 1 and difference.count_nonzero() <= 0.06 * difference.numel()


@pytest.mark.parametrize("name", SAMPLES)
def test_sensitivity(golden, name):
    """The numbers that the tolerances of whole trajectories follow from."""
    case = golden(f"t2i_sample_{name}")
    model = pc.load_checkpoint(case.checkpoint)
    here = run(model, case, case.inputs["noise"])
    there = [run(model, case, moved(case.inputs["noise"], seed)) for seed in range(4)]
    for kind, measured in enumerate(SAMPLES[name], start=1):
        check_measured(max((other[kind] - here[kind]).abs().max().item() for other in there), measured)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_solver_on_the_reference_s_own_outputs(golden, name):
    """Recorded outputs in the place of a network: what is left to differ is the noise of the reference's solver."""
    case = golden(f"t2i_sample_{name}")
    outputs, how = case.outputs, settings(case)
    slopes, states = [], [case.inputs["noise"]]

    def velocity(x, t):
        i = len(slopes)
        output = -outputs[f"net_out_{i:02d}"]
        slopes.append(torch.lerp(*output.chunk(2), how["cfg"]) if outputs["guided"][i] else output)
        return slopes[-1]

    times = pc.time_grid(pc.FAMILIES["pixeldit_t2i"], how["steps"], how["timeshift"])
    flow_dpmpp_2m(velocity, states[0], times, lambda i, t, x, v: states.append(x.clone()))
    assert len(slopes) == how["steps"]
    close(torch.stack(states), outputs["x_traj"], NOISE[0])
    close(images(states, times, slopes), outputs["x0_traj"], NOISE[1])


@pytest.mark.parametrize("name", SAMPLES)
def test_every_call_on_the_reference_s_own_path(golden, name):
    case = golden(f"t2i_sample_{name}")
    outputs = case.outputs
    model = pc.load_checkpoint(case.checkpoint)
    cond, null = conditions(model, case)
    for i, guided in enumerate(outputs["guided"].tolist()):
        x, text = outputs["x_traj"][i], cond
        if guided:
            x, text = torch.cat([x, x]), torch.cat([null, cond])
        output = model.network(x, outputs["net_t"][i].expand(len(x)), text)
        close(output, outputs[f"net_out_{i:02d}"], 2e-5, f"call {i}")


def test_both_rules_are_the_same_for_the_official_models(golden):
    case = golden("t2i_sample_shift1_interval")
    model = pc.load_checkpoint(case.checkpoint)
    cond, null = conditions(model, case)
    runs = [
        pc.sample(model, cond, null, noise=case.inputs["noise"], convention=convention, **settings(case))
        for convention in ("standard", "reference")
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize("name", FORWARD)
def test_low_precision_stays_near(golden, name, dtype, tolerance):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, dtype=dtype)
    velocity = model.velocity(case.inputs["x"], 1 - case.inputs["t"] / 1000, pc.text_condition(model, case.inputs["y"]))
    assert velocity.dtype == torch.float32
    scale = case.outputs["output"].abs().max()
    close(-velocity / scale, case.outputs["output"] / scale, tolerance)


def test_grids(golden):
    tables = golden("tables_timesteps")
    family = pc.FAMILIES["pixeldit_t2i"]
    assert tables.case["t2i_grids"]
    for grid in tables.case["t2i_grids"]:
        times = pc.time_grid(family, grid["steps"], grid["flow_shift"])
        assert torch.equal(times, sigma_grid(grid["steps"], grid["flow_shift"]))
        close(1 - times, tables.outputs[grid["key"]], 1e-6)
        close(1000 * (1 - times[:-1]), tables.outputs[f"{grid['key']}_net_t"], NETWORK_TIME)


@pytest.mark.parametrize("arguments, told", [
    ((1,), "steps is 1; the text-to-image grid needs at least 2"),
    ((5, 0.0), "timeshift is 0.0"),
    ((5, float("nan")), "timeshift is nan"),
    ((5, 1.0, 0.1), "no last_step of its own"),
])  # fmt: skip
def test_what_the_grid_refuses(arguments, told):
    with pytest.raises(ValueError, match=told):
        sigma_grid(*arguments)


def test_the_solver_starts_at_pure_noise_too():
    """From t = 0 the first step has no length in ln(t / (1 - t)); a straight flow still arrives exactly."""
    start, end = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    times = torch.linspace(0, 1, 6)
    close(flow_dpmpp_2m(lambda x, t: end - start, start, times), end, 1e-6)


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
    """Their first call is at sigma 1, where an interval of the whole way does not reach."""
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
