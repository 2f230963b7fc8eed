"""PixelHDM's gates, padding, layouts and attention, and the params and shapes that it rejects."""

import dataclasses

import pytest
import torch
from helpers import randn

from pixeldit_core.families.pixelhdm.from_shapes import params_from
from pixeldit_core.families.pixelhdm.network import PixelHDM
from pixeldit_core.families.pixelhdm.params import PixelHDMParams
from pixeldit_core.layers.attention import scaled_dot_product

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


def tiny(params=TINY, **factory_kwargs):
    network = PixelHDM(params, **factory_kwargs).eval().requires_grad_(False)
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
    """What is done a group of rows at a time, against all at once."""
    network, arguments = tiny(), (randn(2, 16, 24, 3), torch.tensor([0.1, 0.9]), randn(2, 5, 16), torch.ones(2, 5))
    whole = network(*arguments)
    monkeypatch.setattr("pixeldit_core.layers.chunking.ROWS_CHUNK", 64)
    torch.testing.assert_close(network(*arguments), whole)


def test_a_custom_attention_function_is_called_with_the_options():
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
def test_params_that_no_network_can_have(changes, words):
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
def test_shapes_of_no_network(key, shape, words):
    shapes = {name: tuple(value.shape) for name, value in tiny().state_dict().items()}
    assert PixelHDMParams(**params_from(shapes), **{
        name: getattr(TINY, name) for name in vars(TINY) if name.startswith("mrope")
    }) == TINY  # fmt: skip
    shapes[key] = shape
    if shape is None:
        del shapes[key]
    with pytest.raises(KeyError if shape is None else ValueError, match=words):
        params_from(shapes)
