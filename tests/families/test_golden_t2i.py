"""The text-to-image network against the reference programs' data."""

from functools import partial

import pytest
import torch
from helpers import close, record_output

import pixeldit_core as pc

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("reference_processor")]
UNUSED = ("num_text_blocks", "repa_encoder_index")  # of the official constructor, without effect on the network
FORWARD = ("t2i_forward_p4_16x12_longtext", "t2i_forward_p8_24x32_ddp", "t2i_forward_p16_32x32_fsdp")


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}

    keep = partial(record_output, seen)
    first, last, pixel = network.patch_blocks[0], network.patch_blocks[-1], network.pixel_blocks[0]
    keep("s_embed", network.s_embedder)
    keep("t_emb", network.t_embedder)
    keep("y_embed", network.y_embedder)
    for number, stream in enumerate(("img", "txt")):
        keep(f"block0_in_{stream}", first, lambda arguments, _, number=number: arguments[number])
        keep(f"block0_attn_{stream}", first.attn, lambda _, result, number=number: result[number])
        keep(f"block0_{stream}", first, lambda _, result, number=number: result[number])
        keep(f"block_last_{stream}", last, lambda _, result, number=number: result[number])
    keep("pixel_embed", pixel, lambda arguments, _: arguments[0])
    keep("s_cond", pixel, lambda arguments, _: arguments[1])
    keep("pixel_block0_attn", pixel.attn)
    keep("pixel_block0", pixel)
    return seen


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_every_intermediate(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, full_last_block=True)
    for key, value in case.case["config"].items():
        assert key in UNUSED or getattr(model.params, key) == value, key
    seen = record(model.network)
    seen["output"] = model.network(case.inputs["x"], case.inputs["t"], case.inputs["y"])
    others = {"output_with_mask", "output_if_ema_weights_were_used"}
    assert set(seen) == set(case.outputs) - others
    for key, value in seen.items():
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


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize("name", FORWARD)
def test_low_precision_stays_near(golden, name, dtype, tolerance):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, dtype=dtype)
    velocity = model.velocity(case.inputs["x"], 1 - case.inputs["t"] / 1000, pc.text_condition(model, case.inputs["y"]))
    assert velocity.dtype == torch.float32
    scale = case.outputs["output"].abs().max()
    close(-velocity / scale, case.outputs["output"] / scale, tolerance)
