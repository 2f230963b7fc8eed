"""The PixelHDM network against the reference program's data, and what it refuses."""

import dataclasses

import pytest
import torch
from helpers import randn, relative_l2
from pixelhdm_cases import canonical, find, load, params_of, weights_of

from pixeldit_core.families.pixelhdm.from_shapes import params_from
from pixeldit_core.families.pixelhdm.network import PixelHDM, grid_positions, joint_positions
from pixeldit_core.families.pixelhdm.params import PixelHDMParams
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
TINY = PixelHDMParams(
    hidden_dim=16,
    pixel_dim=4,
    patch_size=4,
    patch_layers=2,
    pixel_layers=1,
    num_heads=2,
    num_kv_heads=1,
    mlp_hidden_dim=24,
    pixel_mlp_hidden_dim=8,
    bottleneck_dim=6,
    time_embed_dim=8,
    mrope_text_dim=4,
    mrope_img_h_dim=2,
    mrope_img_w_dim=2,
    mrope_text_max_len=9,
    mrope_img_max_height=4,
    mrope_img_max_width=6,
)


def arguments(inputs, prefix=""):
    names = ("x_t", "t", "text_embed", "text_mask", "pooled_text_embed")
    return [inputs.get(prefix + name) for name in names]


def record(network):
    """Golden intermediates by name, filled by forward hooks."""
    seen = {}

    def keep(module, name, take=lambda arguments, result: result):
        module.register_forward_hook(lambda _, arguments, result: seen.update({name: take(arguments, result)}))

    def keep_normed(attention, block):
        repeat = attention.group
        keep(attention.q_norm, f"{block}_q_normed", lambda _, result: result.transpose(1, 2))
        keep(
            attention.k_norm,
            f"{block}_k_normed_repeated",
            lambda _, result: result.transpose(1, 2).repeat_interleave(repeat, dim=1),
        )

    patch, pixel = network.patch_blocks[0], network.pixel_blocks[0]
    keep(network.patch_embed, "patch_embed")
    keep(network.time_embed, "time_embed")
    keep(network.pixel_embed, "pixel_embed")
    keep(patch.adaln, "patch0_adaln6", lambda _, result: torch.stack(result))
    keep(patch.pre_attn_norm, "patch0_pre_attn_norm")
    keep(patch.attention, "patch0_attn")
    keep(patch.mlp, "patch0_mlp")
    keep(pixel, "s_cond", lambda arguments, _: arguments[1])
    keep(pixel.adaln, "pixel0_adaln6", lambda _, result: torch.stack(result.chunk(6, dim=-1)))
    keep(pixel.compaction, "pixel0_compaction")
    keep(pixel.mlp, "pixel0_mlp")
    keep(network.output_norm, "output_norm")
    keep_normed(patch.attention, "patch0")
    keep_normed(pixel.compaction.attention, "pixel0")
    for kind, blocks in (("patch", network.patch_blocks), ("pixel", network.pixel_blocks)):
        for i, block in enumerate(blocks):
            keep(block, f"{kind}_block_{i}")
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
def test_forward_and_every_intermediate(golden, name):
    case = find(golden, name)
    rotated, gammas = {}, []
    network = load(case, attention=record_rotated(rotated, case.case["config"]["patch_layers"]))
    found = record(network)
    for block in network.pixel_blocks:
        block.adaln.register_forward_hook(lambda *call: gammas.extend(call[2].chunk(6, dim=-1)[::3]))
    v = network(*arguments(case.inputs))

    tolerance = case.case["recommended_tolerance"]["rel_l2"]
    assert v.shape == case.outputs["v"].shape
    assert relative_l2(v, case.outputs["v"]) < tolerance
    intermediates = {key[4:]: value for key, value in case.outputs.items() if key.startswith("mid.")}
    assert set(found) | set(rotated) == {key for key in intermediates if not key.endswith("position_ids")}
    for key, value in (found | rotated).items():
        assert relative_l2(value.reshape(intermediates[key].shape), intermediates[key]) < tolerance, key
    length = found["patch_block_0"].shape[1] - found["patch_embed"].shape[1]
    features = found[f"patch_block_{case.case['config']['repa_align_layer'] - 1}"][:, length:]
    assert relative_l2(features.reshape(case.outputs["repa_features"].shape), case.outputs["repa_features"]) < tolerance
    penalty = sum(gamma.square().mean() for gamma in gammas)
    assert relative_l2(penalty, case.outputs["gamma_l2"].squeeze()) < tolerance


@pytest.mark.parametrize("name", FORWARD)
def test_positions(golden, name):
    case = find(golden, name)
    x, _, text, mask, _ = arguments(case.inputs)
    size = case.outputs["v"].shape[1:3]
    grid = grid_positions(size, case.case["config"]["patch_size"], x.device)
    expected = case.outputs["mid.pixel0_position_ids"]
    assert torch.equal(grid.expand_as(expected), expected)
    joint = grid[None] if text is None else joint_positions(grid, text.shape[1], mask)
    expected = case.outputs["mid.patch0_position_ids"]
    assert torch.equal(joint.expand_as(expected), expected)


@pytest.mark.parametrize("ema, output", [(True, "v_ema"), (False, "v_raw")])
def test_a_file_of_the_trainer(golden, ema, output):
    case = find(golden, "01_trainer_checkpoint")
    v = load(case, ema)(*arguments(case.inputs, "fwd."))
    assert relative_l2(v, case.outputs[output]) < case.case["recommended_tolerance"]["forward_rel_l2"]
    assert relative_l2(case.outputs["v_ema"], case.outputs["v_raw"]) > 1e-3


def test_bfloat16_stays_near_float32(golden):
    """Nearer than the reference, which rounds the tables of time and positions, too."""
    case = find(golden, "08_forward_bf16_optional")
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
def test_keys_and_parameter_counts_of_the_presets(published_keys, name):
    expected = published_keys(f"pixelhdm-{name}")
    with torch.device("meta"):
        network = PixelHDM(params_of(expected["config"]))
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == canonical(expected["keys"])
    assert set(expected["keys"]) - set(found) == set(expected["alias_of"])
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["param_count"]


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_tell_the_sizes_of_the_presets(published_keys, name):
    expected = published_keys(f"pixelhdm-{name}")
    told = params_from({key: tuple(shape) for key, shape in canonical(expected["keys"]).items()})
    params = params_of(expected["config"])
    widths = {"mlp_hidden_dim": params.mlp_width, "pixel_mlp_hidden_dim": params.pixel_mlp_width}
    assert told == {key: widths.get(key, getattr(params, key)) for key in told}
    assert dataclasses.replace(params, **told).mlp_width == params.mlp_width


@pytest.mark.parametrize("name", ("01_trainer_checkpoint", *FORWARD))
def test_shapes_tell_the_sizes_of_a_file(golden, name):
    case = find(golden, name)
    stored = weights_of(torch.load(case.folder / "checkpoint.pt", weights_only=True))
    told = params_from({key: tuple(value.shape) for key, value in stored.items()})
    params = params_of(case.case["config"])
    assert dataclasses.replace(params, **told) == dataclasses.replace(
        params, mlp_hidden_dim=params.mlp_width, pixel_mlp_hidden_dim=params.pixel_mlp_width
    )


def tiny(params=TINY, **kit):
    network = PixelHDM(params, **kit).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        around = 1.0 if "norm" in name else 0.0
        parameter.copy_(around + 0.3 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("gate_type", ["headwise", "elementwise"])
@pytest.mark.parametrize("gate_activation", ["sigmoid", "silu"])
@pytest.mark.parametrize("gate_bias", [False, True])
def test_every_gate(gate_type, gate_activation, gate_bias):
    params = dataclasses.replace(TINY, gate_type=gate_type, gate_activation=gate_activation, gate_bias=gate_bias)
    gate = tiny(params).patch_blocks[0].attention.gate
    x, mixed = randn(2, 5, 16), randn(2, 5, 16, seed=2)
    gates = torch.nn.functional.linear(x, gate.proj.weight, gate.proj.bias)
    gates = {"sigmoid": torch.sigmoid, "silu": torch.nn.functional.silu}[gate_activation](gates)
    if gate_type == "headwise":
        gates = gates.repeat_interleave(8, dim=-1)
    torch.testing.assert_close(gate(x, mixed), mixed * gates)
    assert (gate.proj.bias is not None) == gate_bias


def test_padding_on_the_right_changes_nothing():
    """So texts of different length fit into one batch."""
    network, x, time = tiny(), randn(1, 8, 12, 3), torch.tensor([0.4])
    text, pooled = randn(1, 5, 16), randn(1, 16, seed=2)
    padded = torch.cat([text, randn(1, 3, 16, seed=3)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    short = network(x, time, text, pooled=pooled)
    torch.testing.assert_close(network(x, time, padded, mask, pooled), short)
    torch.testing.assert_close(network(x, time, text, torch.ones(1, 5), pooled), short)
    empty = network(x, time, text, torch.zeros(1, 5), pooled)
    torch.testing.assert_close(empty, network(x, time, pooled=pooled))
    torch.testing.assert_close(network(x, time, text[:, :0], pooled=pooled), empty)
    assert (empty - short).abs().max() > 0.01


def test_both_layouts_and_every_form_of_time():
    network, x, text = tiny(), randn(2, 8, 12, 3), randn(2, 5, 16)
    v = network(x, torch.tensor([0.4, 0.4]), text)
    assert v.shape == x.shape
    for time in (torch.tensor(0.4), torch.tensor([[0.4], [0.4]])):
        assert torch.equal(network(x.movedim(-1, 1), time, text), v)


def test_large_images_are_the_same_in_groups(monkeypatch):
    """What is done a group of rows or tokens at a time, against all at once."""
    network, arguments = tiny(), (randn(2, 16, 24, 3), torch.tensor([0.1, 0.9]), randn(2, 5, 16), torch.ones(2, 5))
    whole = network(*arguments)
    monkeypatch.setattr("pixeldit_core.layers.chunking.TOKENS_CHUNK", 64)
    monkeypatch.setattr("pixeldit_core.layers.chunking.ROWS_CHUNK", 64)
    torch.testing.assert_close(network(*arguments), whole)


def test_an_attention_function_of_ones_own_is_called_with_the_options():
    calls = []

    def attention(q, k, v, **options):
        assert q.shape == k.shape == v.shape
        calls.append(options)
        return scaled_dot_product(q, k, v, **options)

    network, x, time = tiny(attention=attention), randn(2, 8, 12, 3), torch.tensor(0.4)
    text, mask = randn(2, 5, 16), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    v = network(x, time, text, mask, word="hello")
    assert torch.equal(v, tiny()(x, time, text, mask))
    assert [options.pop("word") for options in calls] == ["hello"] * 3
    *patch, pixel = calls
    assert pixel == {} and all(set(options) == {"mask"} for options in patch)
    keys = patch[0]["mask"]
    assert keys.dtype == torch.bool and keys.shape == (2, 1, 1, 5 + 6)
    assert torch.equal(keys[:, 0, 0, :5], mask != 0) and keys[..., 5:].all()
    calls.clear()
    network(x, time, text)
    assert calls == [{}] * 3


@pytest.mark.parametrize("changes, words", [
    ({"num_heads": 3}, "does not divide into 3 heads"),
    ({"num_kv_heads": 4}, "cannot share 4"),
    ({"mrope_text_dim": 2}, "add up to the 8 channels"),
    ({"mrope_text_dim": 3, "mrope_img_h_dim": 3}, "must be even"),
    ({"gate_type": "none"}, "headwise, elementwise"),
    ({"gate_activation": "gelu"}, "sigmoid, silu"),
    ({"pixel_layers": 0}, "pixel_layers is 0"),
    ({"time_embed_dim": 7}, "must be even"),
    ({"mlp_ratio": 2.0}, "mlp_hidden_dim is 24, and mlp_ratio 2.0 makes 32 of 16"),
    ({"mlp_ratio": -1.0}, "greater than 0"),
    ({"mlp_ratio": 0.01, "mlp_hidden_dim": None}, "mlp_ratio 0.01 leaves nothing"),
])  # fmt: skip
def test_sizes_that_no_network_can_have(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize("key, shape, words", [
    ("patch_embed.proj_down.weight", (6, 47), "no square of 3 channels"),
    ("patch_embed.proj_up.weight", (16,), "should be a matrix"),
    ("output_proj.proj.bias", (), "should be a vector"),
    ("patch_blocks.0.attention.q_norm.weight", (5,), "do not divide into heads of 5"),
    ("patch_blocks.0.attention.gate.proj.weight", (3, 16), "3 gates fit neither 2 heads"),
    ("patch_blocks.999999999.mlp.up_proj.weight", (24, 16), "only 3 of the blocks"),
    ("patch_blocks.0.mlp.up_proj.weight", None, None),
    ("time_embed.mlp.0.weight", None, None),
])  # fmt: skip
def test_shapes_that_tell_no_network(key, shape, words):
    shapes = {name: tuple(value.shape) for name, value in tiny().state_dict().items()}
    assert PixelHDMParams(**params_from(shapes), **{
        name: getattr(TINY, name) for name in vars(TINY) if name.startswith("mrope")
    }) == TINY  # fmt: skip
    shapes[key] = shape
    if shape is None:
        del shapes[key]
    with pytest.raises(KeyError if shape is None else ValueError, match=words):
        params_from(shapes)
