"""The x-prediction networks: positions, patches, registers, groups, and layers that ComfyUI gives."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import max_distance, randn, relative_l2
from xpred_cases import TABLES, TINY, TINY_PIXEL, each_network, tiny

from pixeldit_core.families.xpred.from_shapes import params_from
from pixeldit_core.families.xpred.layers import add_positions
from pixeldit_core.families.xpred.pixel_pathway import Compress, Expand
from pixeldit_core.layers import chunking
from pixeldit_core.layers.attention import scaled_dot_product
from pixeldit_core.layers.rope import rope_grid

X, TIME, LABELS = randn(2, 3, 8, 12), torch.tensor([0.3, 0.8]), torch.tensor([1, 3])


@pytest.mark.parametrize("height, width, head", [(3, 5, 8), (4, 2, 6), (2, 3, 2), (1, 7, 10)])
def test_angles_are_of_whole_rows_and_columns(height, width, head):
    half = head // 2
    frequencies = [10000.0 ** (-a / half) for a in range(0, half, 2)]
    angles = [
        [*(y * w for w in frequencies), *(x * w for w in frequencies)][:half]
        for y in range(height)
        for x in range(width)
    ]
    angles = torch.tensor(angles, dtype=torch.float64)
    cos, sin = rope_grid(height, width, head).unbind(-1)
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos, angles.cos().float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(sin, angles.sin().float(), atol=1e-6, rtol=0)


def test_positions_stretch_along_their_axis():
    table = torch.arange(4.0).repeat_interleave(4)[None, :, None]  # the row of each place in a grid of 4 x 4
    assert torch.equal(add_positions(torch.zeros(1, 16, 1), table, (4, 4)), table)
    rows = add_positions(torch.zeros(1, 48, 1), table, (8, 6)).view(8, 6)
    torch.testing.assert_close(rows, rows[:, :1].expand(8, 6))
    assert (rows[1:, 0] - rows[:-1, 0] > 0.1).all()
    torch.testing.assert_close(rows[:, 0] + rows[:, 0].flip(0), torch.full((8,), 3.0))


def test_patches_of_an_oblong_image_return_to_their_place():
    """Blocks that add nothing leave a patch's affine map of its own pixels, channels fastest."""
    network = tiny(TINY)
    for block in network.blocks:
        block.adaLN_modulation[1].weight.zero_(), block.adaLN_modulation[1].bias.zero_()
    network.final_layer.adaLN_modulation[1].weight.zero_(), network.final_layer.adaLN_modulation[1].bias.zero_()
    network.pos_embedding.zero_()
    patches = network.to_patch_embedding(X)  # [B, D, 2, 3]
    normed = network.final_layer.norm_final(patches.movedim(1, -1))
    values = network.final_layer.linear(normed).movedim(-1, 1)  # [B, p*p*C, 2, 3]
    expected = F.pixel_shuffle(values.unflatten(1, (16, 3)).transpose(1, 2).flatten(1, 2), 4)
    torch.testing.assert_close(network(X, TIME, LABELS), expected)


def test_squares_of_pixels_of_an_oblong_image_become_tokens_row_by_row():
    compress, expand = Compress(4, 2), Expand(4, 2)
    x = randn(1, 4 * 6, 4)
    pixel = 3 * 6 + 4  # row 3 and column 4 lie in the square of row 1 and column 2
    changed = x.clone()
    changed[:, pixel] += 1
    with torch.no_grad():
        (square,) = (compress(x, (4, 6)) != compress(changed, (4, 6))).any(-1)[0].nonzero()
        assert square.item() == 1 * 3 + 2
        tokens = randn(1, 6, 16)
        moved = tokens.clone()
        moved[:, square] += 1
        pixels = (expand(tokens, (2, 3)) != expand(moved, (2, 3))).any(-1)[0].nonzero().flatten()
    assert pixels.tolist() == [2 * 6 + 4, 2 * 6 + 5, 3 * 6 + 4, 3 * 6 + 5]


@each_network
def test_images_of_a_batch_do_not_meet(params):
    network = tiny(params)
    both = network(X, TIME, LABELS)
    assert both.shape == X.shape
    for i in range(2):
        one = network(X[i : i + 1], TIME[i : i + 1], LABELS[i : i + 1])
        assert relative_l2(one, both[i : i + 1]) < 2e-5


@each_network
def test_time_class_and_positions_matter(params):
    network = tiny(params)
    output = network(X, TIME, LABELS)
    assert max_distance(network(X, TIME + 0.1, LABELS), output) > 1e-4
    assert max_distance(network(X, TIME, LABELS - 1), output) > 1e-4
    flat = X[:, :, :1, :1].expand_as(X)
    assert network(flat, TIME, LABELS)[0, 0].std() > 1e-4


@each_network
def test_no_label_is_the_last_row_and_one_time_is_for_all(params):
    network = tiny(params)
    output = network(X, TIME, torch.tensor([3, 3]))
    assert torch.equal(network(X, TIME), output)
    assert torch.equal(network(X, torch.tensor(0.3)), network(X, torch.tensor([0.3, 0.3])))


@each_network
def test_groups_of_pixels_change_nothing(params, monkeypatch):
    network = tiny(params)
    output = network(X, TIME, LABELS)
    monkeypatch.setattr(chunking, "ROWS_CHUNK", 64)
    assert relative_l2(network(X, TIME, LABELS), output) < 2e-5


@each_network
def test_tables_may_have_another_dtype(params):
    """As hosts keep what is not in a layer of theirs."""
    network = tiny(params)
    tables = [network.class_embed.weight] if not network.has_registers else []
    tables += [parameter for name, parameter in network.named_parameters() if name in TABLES]
    for table in tables:
        table.data = table.data.bfloat16().float()
    expected = network(X, TIME, LABELS)
    for table in tables:
        table.data = table.data.bfloat16()
    assert torch.equal(network(X, TIME, LABELS), expected)


@each_network
def test_layers_attention_device_and_dtype_can_be_given(params):
    built, calls = [], []

    def layer(name):
        def make(*sizes, **options):
            assert options["device"] == "cpu" and options["dtype"] == torch.float64
            built.append(getattr(torch.nn, name)(*sizes, **options))
            return built[-1]

        return make

    def attention(q, k, v, **options):
        calls.append((tuple(q.shape), options))
        return scaled_dot_product(q, k, v, **options)

    names = ("Linear", "Embedding", "RMSNorm", "LayerNorm", "Conv2d", "ConvTranspose2d")
    operations = SimpleNamespace(**{name: layer(name) for name in names})
    network = tiny(params, operations=operations, attention=attention, device="cpu", dtype=torch.float64)
    assert all(parameter.dtype == torch.float64 for parameter in network.parameters())
    owned = {id(parameter) for module in built for parameter in module.parameters()}
    assert {name for name, parameter in network.named_parameters() if id(parameter) not in owned} <= set(TABLES)
    output = network(X.double(), TIME, LABELS, place=7)
    assert output.dtype == torch.float64
    tokens = [6 + params.num_registers] * params.depth + [4 * 6] * params.pixel_depth
    assert calls == [((2, 2, count, 6), {"place": 7}) for count in tokens]


@each_network
def test_every_weight_has_a_gradient(params):
    network = tiny(params).requires_grad_(True)
    network(X, TIME, LABELS).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_pixels_beyond_the_last_whole_patch_reach_the_pixel_path_only():
    network, maps = tiny(TINY_PIXEL), []
    network.up_conv.register_forward_hook(lambda _, arguments, result: maps.append(result))
    x = randn(2, 3, 10, 14)
    changed = x.clone()
    changed[:, :, 8:], changed[:, :, :, 12:] = 0, 0
    assert max_distance(network(x, TIME, LABELS), network(changed, TIME, LABELS)) > 1e-3
    assert torch.equal(*maps) and maps[0].shape == (2, 12, 10, 14)


def test_attention_between_single_pixels_has_nothing_to_compress():
    network = tiny(dataclasses.replace(TINY_PIXEL, compress_ratio=1))
    keys = network.state_dict()
    assert not any("compress" in key or "expand" in key for key in keys)
    assert params_from({key: tuple(value.shape) for key, value in keys.items()})["compress_ratio"] == 1
    assert network(randn(2, 3, 5, 7), TIME, LABELS).shape == (2, 3, 5, 7)
