"""PixelDiT2 against the reference program's data: every forward and intermediate, the conditioner, keys and counts."""

import dataclasses
from functools import partial

import pytest
import torch
from helpers import find_golden, max_distance, record_output, relative_l2
from pixeldit2_cases import FORWARDS, case_params, find, load
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.families.pixeldit2.from_shapes import default_params, params_from

pytestmark = pytest.mark.golden
OUTPUT = 2e-5
CONDITIONERS = ("conditioner_p8_24x40", "conditioner_p32_64x96")
VARIANTS = {"h16-256": "PixelDiT2-H/16", "h16-512": "PixelDiT2-H/16-512"}
COUNTS = {  # spec: pixeldit2, 2.1
    "PixelDiT2-B/16": 165_325_184,
    "PixelDiT2-L/16": 502_439_808,
    "PixelDiT2-H/16": 1_007_789_728,
    "PixelDiT2-H/16-512": 1_073_696_416,
    "PixelDiT2-H/32": 1_013_690_272,
    "PixelDiT2-G/32": 2_092_893_392,
}
GUESSED = {"in_context_start", "encoder_num_heads", "single_silu_cond", "noise_scale"}


def record_grounding(conditioner, seen):
    """Golden intermediates of the conditioner, filled by forward hooks."""
    keep = partial(record_output, seen)
    keep("encoder_input", conditioner.encoder, lambda arguments, _: arguments[0])
    keep("grounding_tokens", conditioner.encoder)
    keep("proj_in", conditioner.dino_proj.input_proj)
    keep("proj_t_emb", conditioner.dino_proj.t_embedder)
    for i, block in enumerate(conditioner.dino_proj.blocks):
        keep(f"proj_block{i}", block)
    keep("grounding", conditioner.dino_proj)


def record(network):
    """All golden intermediates of a forward by name, filled by forward hooks."""
    seen, blocks = {}, network.patch_blocks
    keep = partial(record_output, seen)
    record_grounding(network.dino_conditioner, seen)
    keep("t_emb", network.t_embedder)
    keep("y_emb", network.y_embedder)
    keep("s_embed", network.s_embedder)
    keep("block0_mod", blocks[0].adaLN_modulation)
    keep("block0_attn", blocks[0].attn)
    keep("block0_mlp", blocks[0].mlp)
    start = blocks[network.params.in_context_start]
    keep("start_block_in", start, lambda arguments, _: arguments[0])
    keep("start_block_cond", start, lambda arguments, _: arguments[1])
    keep("start_block_out", start)
    keep("block0", blocks[0])
    keep("block_last", blocks[-1])
    keep("cond", network.final_layer, lambda arguments, _: arguments[1])
    keep("final_mod", network.final_layer.adaLN_modulation)
    keep("final_tokens", network.final_layer)
    return seen


@pytest.mark.parametrize("name", FORWARDS)
def test_every_forward_and_every_intermediate(name):
    case = find(name)
    network = load(case).network
    x, time, labels, mask = (case.inputs[key] for key in ("x", "t", "labels", "skip_mask"))
    null, every = torch.full_like(labels, network.params.num_classes), torch.ones_like(mask)
    seen = record(network)
    outputs = {"x_pred": network(x, time, labels)}
    intermediates = dict(seen)
    outputs |= {
        "x_pred_skip": network(x, time, labels, every),
        "x_pred_mask": network(x, time, labels, mask),
        "x_pred_null": network(x, time, null, ~every),
        "x_pred_null_skip": network(x, time, null),
    }
    assert set(case.outputs) <= set(outputs) | set(intermediates)
    for key, expected in case.outputs.items():
        assert max_distance({**intermediates, **outputs}[key], expected) <= OUTPUT, key


@pytest.mark.parametrize("name", FORWARDS)
def test_rows_do_not_depend_on_the_rows_beside_them(name):
    case = find(name)
    network = load(case).network
    x, time, labels = (torch.cat([case.inputs[key]] * 2) for key in ("x", "t", "labels"))
    skip = torch.arange(len(x)) >= len(x) // 2
    x_pred, x_pred_skip = network(x, time, labels, skip).chunk(2)
    for key, value in (("x_pred", x_pred), ("x_pred_skip", x_pred_skip)):
        if key in case.outputs:
            assert max_distance(value, case.outputs[key]) <= OUTPUT, key


@pytest.mark.parametrize("name", CONDITIONERS)
def test_conditioner(name):
    case = find(name)
    params = case_params(case.case)
    network = pc.build_model("pixeldit2", params, device="cpu").network
    conditioner, prefix = network.dino_conditioner, "dino_conditioner."
    stored = load_file(case.checkpoint)
    conditioner.load_state_dict({key[len(prefix) :]: stored[key] for key in stored if key.startswith(prefix)})
    seen, x = {}, case.inputs["x"]
    record_grounding(conditioner, seen)
    conditioner(x, case.inputs["t"], network.grid_rope(x, params.proj_heads, None))
    assert set(seen) >= set(case.outputs)
    for key, expected in case.outputs.items():
        assert max_distance(seen[key], expected) <= OUTPUT, key


@pytest.mark.parametrize("name", ("pixeldit2-c2i", "pixeldit2-c2i-512style"))
def test_networks_of_an_independent_copy(name):
    case = find_golden(name, "peers")
    params = case_params(case.case | {"config": {"grounding_proj_heads": None} | case.case["config"]})
    network = pc.build_model("pixeldit2", params, device="cpu").network
    stored = torch.load(case.checkpoint or case.folder / "checkpoint.ckpt", weights_only=True)["state_dict"]
    encoder = load_file(case.folder / "encoder_timm.safetensors")
    state = {key.removeprefix("ema_denoiser."): value for key, value in stored.items() if "ema_denoiser" in key}
    network.load_state_dict(state | {f"dino_conditioner.encoder.{key}": value for key, value in encoder.items()})
    x, time, labels = (case.inputs[key] for key in ("x", "t", "y"))
    every = torch.ones(len(x), dtype=torch.bool)
    for key, skip in (
        ("x_pred", ~every),
        ("x_pred_skip_grounding", every),
        ("x_pred_first_sample_skipped", torch.arange(len(x)) == 0),
    ):
        assert max_distance(network(x, time, labels, skip), case.outputs[key]) <= 8e-5, key


@pytest.mark.parametrize("published, variant", VARIANTS.items())
def test_keys_and_their_order_of_the_published_networks(published_keys, published, variant):
    expected = published_keys(f"pixeldit2-{published}")
    network = pc.build_model("pixeldit2", variant).network
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    (encoder,) = (value for key, value in expected.items() if key.startswith("encoder_keys"))
    assert shapes == expected["keys"] | encoder
    without = [key for key in shapes if not key.startswith("dino_conditioner.encoder.")]
    assert without == list(expected["keys"]) and len(without) == expected["num_tensors_without_encoder"]
    counts = {key: parameter.numel() for key, parameter in network.named_parameters()}
    assert sum(counts.values()) == expected["param_count"]
    assert sum(counts[key] for key in without) == expected["param_count_without_encoder"]
    params = dataclasses.replace(pc.VARIANTS[variant].params, encoder_depth=0)
    assert list(pc.build_model("pixeldit2", params).network.state_dict()) == without


@pytest.mark.parametrize("variant, count", COUNTS.items())
def test_parameter_counts_of_the_variants(variant, count):
    assert sum(parameter.numel() for parameter in pc.build_model("pixeldit2", variant).network.parameters()) == count


@pytest.mark.parametrize("variant", COUNTS)
def test_params_of_the_variants_follow_from_shapes(variant):
    network = pc.build_model("pixeldit2", variant).network
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    detected, guessed, params = params_from(shapes), default_params(shapes), network.params
    filled = dataclasses.replace(params, mlp_hidden_size=params.mlp_width, grounding_proj_heads=params.proj_heads)
    assert set(guessed) == GUESSED and not set(detected) & GUESSED
    assert pc.PixelDiT2Params(**detected, **guessed) == filled


@pytest.mark.parametrize("name", FORWARDS)
def test_params_of_a_file_follow_from_shapes(name):
    case = find(name)
    shapes = {key: tuple(value.shape) for key, value in load_file(case.checkpoint).items()}
    params, guessed = case_params(case.case), default_params(shapes)
    undetermined = {key: getattr(params, key) for key in GUESSED}
    assert pc.PixelDiT2Params(**params_from(shapes), **undetermined) == params
    assert guessed["in_context_start"] == min(4, params.depth - 1)
    assert guessed["single_silu_cond"] == (params.mlp_width != 64 and params.mlp_width != 42)


@pytest.mark.parametrize("name", FORWARDS)
def test_half_precision_stays_near_float32(name):
    case = find(name)
    network = load(case, dtype=torch.bfloat16).network
    x, time, labels = (case.inputs[key] for key in ("x", "t", "labels"))
    output = network(x.bfloat16(), time, labels)
    assert output.dtype == torch.bfloat16
    assert relative_l2(output.float(), case.outputs["x_pred"]) < 0.03
    network.dino_conditioner.encoder.float()  # an encoder may keep a dtype of its own
    mixed = network(x.bfloat16(), time, labels)
    assert mixed.dtype == torch.bfloat16
    assert relative_l2(mixed.float(), case.outputs["x_pred"]) < 0.03
