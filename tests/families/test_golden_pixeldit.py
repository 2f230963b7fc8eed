"""The network against recorded outputs of the published one, inside and out."""

import pytest
import torch
from helpers import close, record_output

import pixeldit_core as pc

pytestmark = pytest.mark.golden

TOLERANCE = 2e-5


def record_intermediates(network):
    """A dictionary that a forward pass fills, under the names of the golden data."""
    seen = {}
    patch, pixel = network.patch_blocks[0], network.pixel_blocks[0]
    for name, module in {
        "s_embed": network.s_embedder,
        "t_emb": network.t_embedder,
        "y_emb": network.y_embedder,
        "patch_block0_mod": patch.adaLN_modulation,
        "patch_block0_attn": patch.attn,
        "patch_block0_mlp": patch.mlp,
        "patch_block0": patch,
        "patch_block_last": network.patch_blocks[-1],
        "pixel_block0_mod": pixel.adaLN_modulation,
        "pixel_block0_compress": pixel.compress_to_attn,
        "pixel_block0_attn": pixel.attn,
        "pixel_block0_mlp": pixel.mlp,
        "pixel_block0": pixel,
        "final_tokens": network.final_layer,
    }.items():
        record_output(seen, name, module)
    record_output(seen, "s_cond", pixel.adaLN_modulation, lambda arguments, _: arguments[0])
    record_output(seen, "pixel_embed", pixel, lambda arguments, _: arguments[0])
    return seen


@pytest.mark.parametrize("name", ["c2i_forward_p16_48x32", "c2i_forward_p8_32x32", "c2i_forward_postmod_p4_16x24"])
def test_output_and_every_intermediate(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    for key, value in case.case["config"].items():
        assert getattr(model.params, key) == value, key
    seen = record_intermediates(model.network)
    seen["output"] = model.network(case.inputs["x"], case.inputs["t"], case.inputs["labels"])
    assert set(seen) == set(case.outputs)
    for key, expected in case.outputs.items():
        close(seen[key].reshape(expected.shape), expected, TOLERANCE, key)


@pytest.mark.parametrize("name", ["c2i_forward_p16_48x32", "c2i_forward_postmod_p4_16x24"])
def test_velocity_is_the_network_in_the_common_language(golden, name):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint)
    x, t, labels = (case.inputs[key] for key in ("x", "t", "labels"))
    close(model.velocity(x, t, labels), case.outputs["output"], TOLERANCE)
    close(model.velocity(x[:1], float(t[0]), labels[:1]), case.outputs["output"][:1], TOLERANCE)
    close(model.velocity(x[:1], t[0], labels[:1]), case.outputs["output"][:1], TOLERANCE)


@pytest.mark.parametrize("weights, output", [("auto", "ema"), ("ema", "ema"), ("raw", "raw")])
def test_lightning_checkpoint(golden, weights, output):
    case = golden("c2i_lightning_ckpt")
    model = pc.load_checkpoint(case.checkpoint, weights=weights)
    seen = record_intermediates(model.network)
    close(
        model.network(case.inputs["x"], case.inputs["t"], case.inputs["labels"]),
        case.outputs[f"output_{output}"],
        TOLERANCE,
    )
    if output == "ema":
        close(seen["s_cond"], case.outputs["s_cond_ema"], TOLERANCE)
    info = pc.inspect_checkpoint(case.checkpoint)
    assert info.weights == ("ema", "raw")
    assert info.layout == "ema_denoiser."


@pytest.mark.parametrize("name", ["c2i_forward_p16_48x32", "c2i_forward_postmod_p4_16x24"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_low_precision_stays_near(golden, name, dtype, tolerance):
    case = golden(name)
    model = pc.load_checkpoint(case.checkpoint, dtype=dtype)
    x, t, labels = (case.inputs[key] for key in ("x", "t", "labels"))
    output = model.velocity(x, t, labels)
    assert output.dtype == torch.float32
    scale = case.outputs["output"].abs().max()
    close(output / scale, case.outputs["output"] / scale, tolerance)
