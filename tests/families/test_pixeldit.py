"""Sizes and names of the network, and what stays in float32 whatever the weights are."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.layers.embeddings import sincos_1d, sincos_2d, time_features
from pixeldit_core.layers.rope import apply_rope, rope_2d

LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    "preset, name, count",
    [
        ("PixelDiT-B", "b", 184_749_155),
        ("PixelDiT-L", "l", 569_648_963),
        ("PixelDiT-XL", "xl", 797_383_203),
    ],
)
def test_keys_and_parameter_counts_are_the_published_ones(published_keys, preset, name, count):
    expected = published_keys(f"pixeldit-{name}-c2i")
    model = pc.build_model("pixeldit", preset)
    state = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    assert state == expected["keys"]
    assert sum(value.numel() for value in model.network.parameters()) == expected["param_count"] == count
    assert model.device.type == "meta"


def test_swiglu_sizes_are_truncated():
    for width, hidden in {32: 85, 40: 106, 768: 2048, 1024: 2730, 1152: 3072}.items():
        assert pc.PixelDiTParams(width, 2, 1, 1).mlp_width == hidden


def test_block_lists_have_the_names_that_other_nodes_look_for(tiny):
    network = tiny().network
    assert isinstance(network.patch_blocks, torch.nn.ModuleList) and len(network.patch_blocks) == 2
    assert isinstance(network.pixel_blocks, torch.nn.ModuleList) and len(network.pixel_blocks) == 1


@pytest.mark.parametrize("dtype", LOW)
def test_tables_are_float32_whatever_the_input(dtype):
    assert time_features(torch.tensor([0.3], dtype=dtype)).dtype == torch.float32
    assert rope_2d(2, 3, 8).dtype == sincos_1d(3, 8).dtype == torch.float32
    assert apply_rope(torch.ones(1, 6, 2, 8, dtype=dtype), rope_2d(2, 3, 8)).dtype == dtype


@pytest.mark.parametrize("dtype", LOW)
def test_time_reaches_its_features_in_float32(tiny, dtype):
    model = tiny(dtype=dtype)
    seen = []
    model.network.t_embedder.mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    t = 0.12345678
    model.velocity(torch.zeros(1, 3, 8, 8), t, torch.tensor([0]))
    exact = time_features(torch.tensor([t])).to(dtype)
    coarse = time_features(torch.tensor([t], dtype=dtype)).to(dtype)
    assert torch.equal(seen[0], exact) and not torch.equal(exact, coarse)


@pytest.mark.parametrize("dtype", LOW)
def test_rotation_is_computed_in_float32(tiny, dtype):
    """An attention function sees queries that were rotated by float32 angles and rounded once."""
    seen = []

    def attention(q, k, v, **options):
        seen.append(q)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    model = tiny(dtype=dtype, attention=attention)
    attn = model.network.patch_blocks[0].attn
    inputs = []
    attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model.velocity(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), 0.5, torch.tensor([1]))
    q = attn.q_norm(attn.qkv(inputs[0]).unflatten(-1, (3, attn.num_heads, -1))[:, :, 0])
    rope = rope_2d(16, 16, q.shape[-1])
    exact = apply_rope(q, rope).transpose(1, 2)
    coarse = apply_rope(q, rope.to(dtype).float()).transpose(1, 2)
    assert (seen[0] == exact).float().mean() > 0.98
    assert (seen[0] == coarse).float().mean() < 0.9


@pytest.mark.parametrize("dtype", LOW)
def test_pixel_positions_are_computed_in_float32(tiny, dtype):
    model = tiny(dtype=dtype)
    seen = []
    model.network.pixel_blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    side = 128
    model.velocity(torch.zeros(1, 3, side, side), 0.5, torch.tensor([1]))
    bias = model.network.pixel_embedder.proj.bias.float()
    axis = sincos_1d(side, 2)
    table = sincos_2d(axis, axis).view(side // 4, 4, side // 4, 4, 4).transpose(1, 2).reshape(-1, 16, 4)
    error = (seen[0].reshape(table.shape).float() - bias - table).abs().max()
    assert error < 2 * torch.finfo(dtype).eps  # angles in low precision would be wrong by up to half a radian


def test_a_network_sees_sizes_it_was_not_trained_on(tiny):
    model = tiny()
    for size in ((4, 4), (4, 20), (32, 12)):
        assert model.velocity(torch.zeros(2, 3, *size), 0.5, torch.tensor([0, 12])).shape == (2, 3, *size)


def test_time_may_be_a_number_or_a_tensor(tiny):
    model = tiny()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one = model.velocity(x, 0.25, torch.tensor([3]))
    for t in (torch.tensor(0.25), torch.tensor([0.25]), torch.tensor([0.25, 0.25])):
        assert torch.equal(one, model.velocity(x, t, torch.tensor([3, 3])))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_groups": 5}, "hidden_size 24 does not divide into 5 heads"),
        ({"pixel_hidden_size": 6}, "pixel_hidden_size is 6"),
        ({"pixel_depth": 0}, "pixel_depth is 0"),
    ],
)
def test_params_that_no_network_can_have(change, message):
    with pytest.raises(ValueError, match=message):
        pc.PixelDiTParams(**{"hidden_size": 24, "num_groups": 2, "patch_depth": 1, "pixel_depth": 1, **change})


def test_build_names_what_there_is():
    with pytest.raises(ValueError, match='"PixelDiT-XXL" is not known.*PixelDiT-B, PixelDiT-L, PixelDiT-XL'):
        pc.build_model("pixeldit", "PixelDiT-XXL")
    with pytest.raises(ValueError, match='family "sd" is not known; there are pixeldit'):
        pc.build_model("sd", "PixelDiT-XL")
    with pytest.raises(ValueError, match="takes PixelDiTParams, not dict"):
        pc.build_model("pixeldit", {})
