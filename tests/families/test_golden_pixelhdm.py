"""The PixelHDM network against the reference program's data."""

import dataclasses
from functools import partial

import pytest
import torch
from helpers import record_output, relative_l2
from pixelhdm_cases import canonical, find, load, params_of, weights_of

from pixeldit_core.families.pixelhdm.from_shapes import params_from
from pixeldit_core.families.pixelhdm.network import PixelHDM, grid_positions, joint_positions
from pixeldit_core.layers.attention import scaled_dot_product

pytestmark = pytest.mark.golden
FORWARD = (
    "02_forward_square_masked",
    "03_forward_nonsquare_nomask",
    "04_forward_notext_bchw",
    "05_forward_odd_masks",
    "06_forward_gate_elementwise",
    "07_forward_patch16_raw",
)
VARIANTS = ("default", "default-bottleneck256", "small", "large", "for_testing")


def arguments(inputs, prefix=""):
    names = ("x_t", "t", "text_embed", "text_mask", "pooled_text_embed")
    return [inputs.get(prefix + name) for name in names]


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}
    keep = partial(record_output, seen)

    def keep_normed(attention, block):
        repeat = attention.group
        keep(f"{block}_q_normed", attention.q_norm, lambda _, result: result.transpose(1, 2))
        keep(
            f"{block}_k_normed_repeated",
            attention.k_norm,
            lambda _, result: result.transpose(1, 2).repeat_interleave(repeat, dim=1),
        )

    patch, pixel = network.patch_blocks[0], network.pixel_blocks[0]
    keep("patch_embed", network.patch_embed)
    keep("time_embed", network.time_embed)
    keep("pixel_embed", network.pixel_embed)
    keep("patch0_adaln6", patch.adaln, lambda _, result: torch.stack(result))
    keep("patch0_pre_attn_norm", patch.pre_attn_norm)
    keep("patch0_attn", patch.attention)
    keep("patch0_mlp", patch.mlp)
    keep("s_cond", pixel, lambda arguments, _: arguments[1])
    keep("pixel0_adaln6", pixel.adaln, lambda _, result: torch.stack(result.chunk(6, dim=-1)))
    keep("pixel0_compaction", pixel.compaction)
    keep("pixel0_mlp", pixel.mlp)
    keep("output_norm", network.output_norm)
    keep_normed(patch.attention, "patch0")
    keep_normed(pixel.compaction.attention, "pixel0")
    for kind, blocks in (("patch", network.patch_blocks), ("pixel", network.pixel_blocks)):
        for i, block in enumerate(blocks):
            keep(f"{kind}_block_{i}", block)
    return seen


def record_rotated(seen, patch_layers):
    """An attention function that keeps the queries and keys of the first block of each kind."""
    names = {0: "patch0", patch_layers: "pixel0"}
    calls = []

    def attention(q, k, v, **options):
        if len(calls) in names:
            seen[f"{names[len(calls)]}_q_rot"], seen[f"{names[len(calls)]}_k_rot"] = q, k
        calls.append(options)
        return scaled_dot_product(q, k, v, **options)

    return attention


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_every_intermediate(name):
    case = find(name)
    rotated, gammas = {}, []
    network = load(case, attention=record_rotated(rotated, case.case["config"]["patch_layers"]))
    recorded = record(network)
    for block in network.pixel_blocks:
        block.adaln.register_forward_hook(lambda *call: gammas.extend(call[2].chunk(6, dim=-1)[::3]))
    v = network(*arguments(case.inputs))

    tolerance = case.case["recommended_tolerance"]["rel_l2"]
    assert v.shape == case.outputs["v"].shape
    assert relative_l2(v, case.outputs["v"]) < tolerance
    intermediates = {key[4:]: value for key, value in case.outputs.items() if key.startswith("mid.")}
    assert set(recorded) | set(rotated) == {key for key in intermediates if not key.endswith("position_ids")}
    for key, value in (recorded | rotated).items():
        assert relative_l2(value.reshape(intermediates[key].shape), intermediates[key]) < tolerance, key
    length = recorded["patch_block_0"].shape[1] - recorded["patch_embed"].shape[1]
    features = recorded[f"patch_block_{case.case['config']['repa_align_layer'] - 1}"][:, length:]
    assert relative_l2(features.reshape(case.outputs["repa_features"].shape), case.outputs["repa_features"]) < tolerance
    penalty = sum(gamma.square().mean() for gamma in gammas)
    assert relative_l2(penalty, case.outputs["gamma_l2"].squeeze()) < tolerance


@pytest.mark.parametrize("name", FORWARD)
def test_positions(name):
    case = find(name)
    x, _, text, mask, _ = arguments(case.inputs)
    size = case.outputs["v"].shape[1:3]
    grid = grid_positions(size, case.case["config"]["patch_size"], x.device)
    expected = case.outputs["mid.pixel0_position_ids"]
    assert torch.equal(grid.expand_as(expected), expected)
    joint = grid[None] if text is None else joint_positions(grid, text.shape[1], mask)
    expected = case.outputs["mid.patch0_position_ids"]
    assert torch.equal(joint.expand_as(expected), expected)


@pytest.mark.parametrize("ema, output", [(True, "v_ema"), (False, "v_raw")])
def test_a_file_of_the_trainer(ema, output):
    case = find("01_trainer_checkpoint")
    v = load(case, ema)(*arguments(case.inputs, "fwd."))
    assert relative_l2(v, case.outputs[output]) < case.case["recommended_tolerance"]["forward_rel_l2"]
    assert relative_l2(case.outputs["v_ema"], case.outputs["v_raw"]) > 1e-3


def test_bfloat16_stays_near_float32():
    """Nearer than the reference, which rounds the tables of time and positions, too."""
    case = find("08_forward_bf16_optional")
    x, time, text, mask, pooled = arguments(case.inputs)
    exact = load(case)
    assert relative_l2(exact(x, time, text, mask, pooled), case.outputs["v_float32"]) < 2e-5
    assert relative_l2(exact.time_embed(time, x.dtype), case.outputs["time_embed_float32"]) < 2e-5
    network = load(case, dtype=torch.bfloat16)
    v = network(x.bfloat16(), time, text, mask, pooled)
    assert v.dtype == torch.bfloat16
    assert relative_l2(v.float(), case.outputs["v_float32"]) < 0.05
    assert relative_l2(case.outputs["v_bf16"], case.outputs["v_float32"]) > 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_and_parameter_counts_of_the_variants(published_keys, name):
    expected = published_keys(f"pixelhdm-{name}")
    with torch.device("meta"):
        network = PixelHDM(params_of(expected["config"]))
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == canonical(expected["keys"])
    assert set(expected["keys"]) - set(shapes) == set(expected["alias_of"])
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["param_count"]


@pytest.mark.parametrize("name", VARIANTS)
def test_params_of_the_variants_follow_from_shapes(published_keys, name):
    expected = published_keys(f"pixelhdm-{name}")
    detected = params_from({key: tuple(shape) for key, shape in canonical(expected["keys"]).items()})
    params = params_of(expected["config"])
    widths = {"mlp_hidden_dim": params.mlp_width, "pixel_mlp_hidden_dim": params.pixel_mlp_width}
    assert detected == {key: widths.get(key, getattr(params, key)) for key in detected}
    assert dataclasses.replace(params, **detected).mlp_width == params.mlp_width


@pytest.mark.parametrize("name", ("01_trainer_checkpoint", *FORWARD))
def test_params_of_a_file_follow_from_shapes(name):
    case = find(name)
    stored = weights_of(torch.load(case.folder / "checkpoint.pt", weights_only=True))
    detected = params_from({key: tuple(value.shape) for key, value in stored.items()})
    params = params_of(case.case["config"])
    assert dataclasses.replace(params, **detected) == dataclasses.replace(
        params, mlp_hidden_dim=params.mlp_width, pixel_mlp_hidden_dim=params.pixel_mlp_width
    )
