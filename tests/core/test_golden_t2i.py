"""The text-to-image network, its grid and its solver against the reference programs' data."""

import pytest
import torch

from pixeldit_core.checkpoints.read import read_checkpoint
from pixeldit_core.flow.grid import sigma_grid
from pixeldit_core.flow.guidance import guided_velocity
from pixeldit_core.flow.solvers import flow_dpmpp_2m
from pixeldit_core.networks.pixeldit_t2i import PixelDiTT2I, PixelDiTT2IParams

UNUSED = ("num_text_blocks", "repa_encoder_index")  # of the official constructor, without effect on the network
FORWARD = ("t2i_forward_p4_16x12_longtext", "t2i_forward_p8_24x32_ddp", "t2i_forward_p16_32x32_fsdp")
SAMPLES = ("2steps", "cfg1", "shift1_interval", "shift3_interval", "shift4")


def load(case):
    config = {key: value for key, value in case.case["config"].items() if key not in UNUSED}
    network = PixelDiTT2I(PixelDiTT2IParams(**config)).eval().requires_grad_(False)
    tensors, _ = read_checkpoint(case.checkpoint)
    weights = {key.removeprefix("core."): value for key, value in tensors.items() if key.startswith("core.")}
    network.load_state_dict(weights)
    return network


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}

    def keep(module, name, take=lambda arguments, result: result):
        module.register_forward_hook(lambda _, arguments, result: seen.update({name: take(arguments, result)}))

    first, last = network.patch_blocks[0], network.patch_blocks[-1]
    keep(network.s_embedder, "s_embed")
    keep(network.t_embedder, "t_emb")
    keep(network.y_embedder, "y_embed")
    keep(first, "block0_in_txt", lambda arguments, _: arguments[1])
    for number, stream in enumerate(("img", "txt")):
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
    network = load(case)
    seen = record(network)
    output = network(case.inputs["x"], case.inputs["t"], case.inputs["y"])
    torch.testing.assert_close(output, case.outputs["output"], atol=2e-5, rtol=0)
    for key, value in seen.items():
        torch.testing.assert_close(
            value, case.outputs[key], atol=2e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert len(seen) >= 13


def test_the_published_size_has_the_published_number_of_parameters():
    network = PixelDiTT2I(PixelDiTT2IParams(1536, 24, 14, 2, 1152, 16), device="meta")
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_302_470_787
    assert len(network.state_dict()) == 385


@pytest.mark.parametrize("name", SAMPLES)
def test_trajectory_step_by_step(golden, name):
    case = golden(f"t2i_sample_{name}")
    network, settings = load(case), case.case["sampler_settings"]
    noise, outputs = case.inputs["noise"], case.outputs
    states, rows, images = [], [], []

    def velocity(x, t, text):
        rows.append(len(x))
        return -network(x, torch.full((len(x),), 1000 * (1 - t)), text)

    def on_step(i, t, x, v):
        before = noise if i == 0 else states[-1]
        images.append(before + (1 - times[i]) * v)
        states.append(x)

    low, high = settings["interval_guidance"]  # in sigma = 1 - t
    cond, null = (case.inputs[key].expand(len(noise), -1, -1, -1) for key in ("y_cond", "y_uncond"))
    times = sigma_grid(settings["steps"], settings["flow_shift"])
    guided = guided_velocity(velocity, cond, null, settings["cfg_scale"], (1 - high, 1 - low))
    with torch.no_grad():
        final = flow_dpmpp_2m(guided, noise, times, on_step)
    torch.testing.assert_close(1 - times, outputs["timesteps"], atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.stack(states), outputs["x_traj"][1:], atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.stack(images), outputs["x0_traj"], atol=1e-2, rtol=0)
    assert rows == [len(noise) * (2 if flag else 1) for flag in outputs["guided"].tolist()]
    pixels = ((final.clamp(-1, 1) + 1) / 2 * 255 + 0.5).floor()
    assert (pixels - outputs["final_uint8"].float()).abs().max() <= 1


def test_grids(golden):
    tables = golden("tables_timesteps")
    for grid in tables.case["t2i_grids"]:
        times = sigma_grid(grid["steps"], grid["flow_shift"])
        torch.testing.assert_close(1 - times, tables.outputs[grid["key"]], atol=1e-6, rtol=0)
        torch.testing.assert_close(1000 * (1 - times[:-1]), tables.outputs[f"{grid['key']}_net_t"], atol=1e-4, rtol=0)


def test_what_the_grid_refuses():
    for arguments in ((1,), (5, 0.0), (5, 1.0, 0.1)):
        with pytest.raises(ValueError):
            sigma_grid(*arguments)


def test_the_solver_starts_at_pure_noise_too():
    """From t = 0 the first step has no length in ln(t / (1 - t)); a straight flow still arrives exactly."""
    start, end = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    times = torch.linspace(0, 1, 6)
    torch.testing.assert_close(flow_dpmpp_2m(lambda x, t: end - start, start, times), end)
