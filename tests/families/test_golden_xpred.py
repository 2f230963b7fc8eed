"""The x-prediction networks against the reference program's data, and what they refuse."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import max_distance, randn, relative_l2
from xpred_cases import DATASETS, FILES, TABLES, case_params, find, preset_params, weights_of

from pixeldit_core.families.xpred.from_shapes import guess_image_size, inner_width, params_from
from pixeldit_core.families.xpred.layers import add_positions
from pixeldit_core.families.xpred.network import (
    XPredDiT,
    XPredMMDiT,
    XPredMMPixelDiT,
    XPredPixelDiT,
    network_class,
)
from pixeldit_core.families.xpred.params import XPredParams
from pixeldit_core.families.xpred.pixel_pathway import Compress, Expand
from pixeldit_core.layers import chunking
from pixeldit_core.layers.attention import scaled_dot_product
from pixeldit_core.layers.rope import rope_grid

CLASSES = {"DiT": XPredDiT, "MMDiT": XPredMMDiT, "PixelDiT": XPredPixelDiT, "MMPixelDiT": XPredMMPixelDiT}
pytestmark = pytest.mark.golden

OUTPUT = (
    2e-5  # of outputs and intermediates, where 2e-5 to 2e-4 were suggested; no processor differed by more than 5e-6
)
VARIANTS = ("dit-tiny-4", "mmdit-tiny-4", "pixeldit-tiny-4", "mmpixeldit-tiny-4")
LEGACY = ("legacy-pixeldit", "legacy-mmpixeldit")
NETWORKS = [
    *((preset, dataset) for preset in VARIANTS for dataset in DATASETS),
    *((preset, dataset) for preset in LEGACY for dataset in ("mnist", "cifar10")),
]

TINY = XPredParams(dim=12, depth=2, heads=2, dim_head=6, num_classes=3, mlp_hidden_dim=20, image_size=12)
TINY_MM = dataclasses.replace(TINY, num_registers=3, qk_norm="layernorm")
TINY_PIXEL = dataclasses.replace(
    TINY,
    pixel_dim=4,
    pixel_depth=2,
    compress_ratio=2,
    pixel_mlp_hidden_dim=10,
    qk_norm="rmsnorm",
)
TINY_MM_PIXEL = dataclasses.replace(TINY_PIXEL, num_registers=3)
KINDS = (TINY, TINY_MM, TINY_PIXEL, TINY_MM_PIXEL)


def load(found, kind="ema", **kit):
    network = CLASSES[found.case["network"]](case_params(found.case), **kit)
    network.load_state_dict(weights_of(found, kind))
    return network.eval().requires_grad_(False)


def arguments(test, inputs):
    return [None if test["inputs"][name] is None else inputs[test["inputs"][name]] for name in ("x", "t", "y")]


def record(network, length):
    """Golden intermediates by name, filled by forward hooks; `length` patches come before any registers."""
    seen = {}

    def keep(module, name):
        module.register_forward_hook(lambda _, arguments, result: seen.update({name: result}))

    def keep_tokens(module, name):
        if not network.has_registers:
            keep(module, name)
            return
        module.register_forward_hook(
            lambda _, arguments, result: seen.update(
                {f"{name}.img": result[:, :length], f"{name}.reg": result[:, length:]}
            )
        )

    blocks = network.dit_blocks if network.has_pixel_pathway else network.blocks
    blocks[0].register_forward_hook(lambda _, arguments, result: seen.update(condition=arguments[1]))
    keep(network.time_mlp[0], "time_sinusoid")
    keep(network.time_mlp, "t_emb")
    keep_tokens(blocks[0].attn, "block0.attn")
    for i, block in enumerate(blocks):
        keep_tokens(block, f"block{i}")
    if network.has_pixel_pathway:
        keep(network.up_conv, "pixel_cond_map")
        keep(network.pit_blocks[0].attn, "pit0.attn")
        for i, block in enumerate(network.pit_blocks):
            keep(block, f"pit{i}")
    return seen


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in VARIANTS)))
def test_every_forward_and_every_intermediate(name):
    found = find(name)
    tests = [test for test in found.case["tests"] if test["kind"] == "forward"]
    assert tests
    for test in tests:
        network = load(found, test["weights"])
        x, time, labels = arguments(test, found.inputs)
        p = network.params.patch_size
        seen = record(network, (x.shape[2] // p) * (x.shape[3] // p))
        seen["pred"] = network(x, time, labels)
        assert set(test["outputs"]) in ({"pred"}, set(seen))
        for key, place in test["outputs"].items():
            assert max_distance(seen[key], found.outputs[place]) <= OUTPUT, f"{test['name']}: {key}"


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in VARIANTS)))
def test_parameter_counts_of_the_cases(name):
    found = find(name)
    assert sum(value.numel() for value in weights_of(found).values()) == found.case["param_count"]


@pytest.mark.parametrize("preset", VARIANTS)
def test_the_recipe_makes_the_weights_that_were_recorded(preset):
    found = find(f"preset-{preset}-mnist")
    weights = weights_of(found)
    for key, expected in found.case["recipe_checksums"].items():
        assert weights[key].double().sum().item() == pytest.approx(expected, abs=1e-9), key


def test_a_prediction_inside_the_training_loss():
    found = find("flow-loss")
    tests = [test for test in found.case["tests"] if test["kind"] == "loss"]
    assert tests
    for test in tests:
        names = test["outputs"]
        x, time, labels, expected = (found.outputs[names[key]] for key in ("x_t", "t", "y_used", "pred_x1"))
        assert max_distance(load(found, test["weights"])(x, time, labels), expected) <= OUTPUT


@pytest.mark.parametrize("preset, dataset", NETWORKS)
def test_keys_and_parameter_counts_of_the_presets(published_keys, preset, dataset):
    expected = published_keys(f"xpred-{preset}-{dataset}")
    params = preset_params(preset, dataset)
    assert network_class(params) is CLASSES[expected["class"]]
    with torch.device("meta"):
        network = network_class(params)(params)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == expected["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["param_count"]


def check_told(shapes, params):
    """Shapes tell all sizes but those of the image's values and, where nothing shows them, heads and image_size."""
    told = params_from(shapes)
    untold = {"image_mean", "image_std"}
    untold |= set() if params.pixel_depth and params.use_abs_pe else {"image_size"}
    untold |= set() if params.qk_norm else {"heads", "dim_head"}
    untold |= set() if params.pixel_depth else {"pixel_dim", "pixel_depth", "compress_ratio", "pixel_mlp_hidden_dim"}
    assert set(told) == {field.name for field in dataclasses.fields(XPredParams)} - untold
    assert XPredParams(**{name: getattr(params, name) for name in untold}, **told) == params
    assert inner_width(shapes) == params.heads * params.dim_head
    size = params.image_size if params.pixel_depth else params.grid * params.patch_size
    assert guess_image_size(shapes) == (size if params.use_abs_pe else None)


@pytest.mark.parametrize("preset, dataset", NETWORKS)
def test_shapes_tell_the_sizes_of_the_presets(published_keys, preset, dataset):
    keys = published_keys(f"xpred-{preset}-{dataset}")["keys"]
    check_told({key: tuple(shape) for key, shape in keys.items()}, preset_params(preset, dataset))


@pytest.mark.parametrize("name", FILES)
def test_shapes_tell_the_sizes_of_a_file(name):
    found = find(name)
    check_told({key: tuple(value.shape) for key, value in weights_of(found).items()}, case_params(found.case))


def tiny(params, **kit):
    network = network_class(params)(params, **kit).eval().requires_grad_(False)
    for seed, (name, parameter) in enumerate(network.named_parameters()):
        parameter.copy_((1.0 if "norm" in name else 0.0) + 0.3 * randn(*parameter.shape, seed=seed))
    return network


kinds = pytest.mark.parametrize("params", KINDS, ids=lambda params: network_class(params).__name__)
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
    cos, sin = rope_grid(height, width, head)
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos, angles.cos().float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(sin, angles.sin().float(), atol=1e-6, rtol=0)


def test_positions_stretch_along_the_axis_they_tell():
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


@kinds
def test_images_of_a_batch_do_not_meet(params):
    network = tiny(params)
    both = network(X, TIME, LABELS)
    assert both.shape == X.shape
    for i in range(2):
        one = network(X[i : i + 1], TIME[i : i + 1], LABELS[i : i + 1])
        assert relative_l2(one, both[i : i + 1]) < 2e-5


@kinds
def test_time_class_and_positions_matter(params):
    network = tiny(params)
    output = network(X, TIME, LABELS)
    assert max_distance(network(X, TIME + 0.1, LABELS), output) > 1e-4
    assert max_distance(network(X, TIME, LABELS - 1), output) > 1e-4
    flat = X[:, :, :1, :1].expand_as(X)
    assert network(flat, TIME, LABELS)[0, 0].std() > 1e-4


@kinds
def test_no_label_is_the_last_row_and_one_time_is_for_all(params):
    network = tiny(params)
    output = network(X, TIME, torch.tensor([3, 3]))
    assert torch.equal(network(X, TIME), output)
    assert torch.equal(network(X, torch.tensor(0.3)), network(X, torch.tensor([0.3, 0.3])))


@kinds
def test_groups_of_tokens_change_nothing(params, monkeypatch):
    network = tiny(params)
    output = network(X, TIME, LABELS)
    monkeypatch.setattr(chunking, "TOKENS_CHUNK", 64)
    assert relative_l2(network(X, TIME, LABELS), output) < 2e-5


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
@pytest.mark.parametrize("name", ["dit-r1-layernorm-noape", "mmdit-r1", "pixeldit-r1", "mmpixeldit-r1"])
def test_half_precision_stays_near_float32(name, dtype, tolerance):
    found = find(name)
    network = load(found, dtype=dtype)
    for test in (test for test in found.case["tests"] if test["name"] in ("fwd", "fwd_other_size")):
        x, time, labels = arguments(test, found.inputs)
        output = network(x.to(dtype), time, labels)
        expected = found.outputs[test["outputs"]["pred"]]
        assert output.dtype == dtype
        assert relative_l2(output.float(), expected) < tolerance


@kinds
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


@kinds
def test_a_host_gives_layers_attention_device_and_dtype(params):
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


@kinds
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


@pytest.mark.parametrize("network", CLASSES.values())
def test_each_network_takes_its_own_sizes_only(network):
    for params in KINDS:
        if network_class(params) is not network:
            with pytest.raises(ValueError, match=f"make a {network_class(params).__name__}, not a {network.__name__}"):
                network(params)


@pytest.mark.parametrize("changes, words", [
    ({"depth": 0}, "depth is 0; it must be at least 1"),
    ({"heads": 0}, "heads is 0"),
    ({"num_classes": 0}, "num_classes is 0"),
    ({"compress_ratio": 0}, "compress_ratio is 0"),
    ({"mlp_hidden_dim": 0}, "mlp_hidden_dim is 0"),
    ({"pixel_mlp_hidden_dim": -1}, "pixel_mlp_hidden_dim is -1"),
    ({"num_registers": -1}, "num_registers is -1; it must be at least 0"),
    ({"dim": 2}, "dim is 2; it must be even and at least 4"),
    ({"dim": 13}, "dim is 13; it must be even"),
    ({"dim_head": 5}, "dim_head is 5; it must be even"),
    ({"dim_head": 0}, "dim_head is 0; it must be even"),
    ({"pixel_dim": 0}, "pixel_dim is 0 and pixel_depth is 2"),
    ({"pixel_depth": 0}, "pixel_dim is 4 and pixel_depth is 0"),
    ({"qk_norm": "l2"}, 'qk_norm is "l2"; it must be "rmsnorm", "layernorm"'),
    ({"image_size": 3}, "image_size is 3; it must be at least a patch of 4"),
    ({"image_mean": (0.5, 0.5)}, "image_mean is .0.5, 0.5.; it must be one number for each of 3"),
    ({"image_mean": ()}, "image_mean is ..; it must be one"),
    ({"image_std": (0.5, 0.5, math.inf)}, "image_std is"),
    ({"image_std": (0.5, 0.5, 0.0)}, "image_std is .*; each must be greater than 0"),
])  # fmt: skip
def test_sizes_that_no_network_can_have(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY_PIXEL, **changes)


def test_one_mean_is_for_every_channel():
    assert TINY.image_mean == TINY.image_std == (0.5, 0.5, 0.5)
    params = XPredParams(dim=8, depth=1, image_mean=[0.1, 0.2, 0.3], image_std=(2.0,))
    assert params.image_mean == (0.1, 0.2, 0.3) and params.image_std == (2.0, 2.0, 2.0)
    assert (params.mlp_width, TINY.mlp_width, TINY_PIXEL.pixel_mlp_width) == (32, 20, 10)


def shapes_of(params):
    return {key: tuple(value.shape) for key, value in tiny(params).state_dict().items()}


@pytest.mark.parametrize("key, shape, words", [
    ("dit_blocks.0.attn.q_norm.weight", (5,), "12 channels of queries do not divide into heads of 5"),
    ("dit_blocks.0.attn.qkv.weight", (37, 12), "37 rows, which do not divide into queries, keys and values"),
    ("to_semantic_patch.0.weight", (12, 3, 4, 5), "last two dimensions should be equal"),
    ("to_semantic_patch.0.weight", (12, 48), "should have 4 dimensions"),
    ("pixel_pos_embedding", (1, 143, 4), "143 positions, which make no square"),
    ("class_registers", (4, 12), "should have 3 dimensions"),
    ("class_registers", (4, 0, 12), "should have 3 dimensions"),
    ("dit_blocks.0.mlp.0.weight", (20,), "should be a matrix"),
    ("dit_blocks.999999999.norm1.weight", (12,), "only 3 of the blocks"),
    ("pit_blocks.0.ffn.0.weight", None, None),
    ("to_pixel_patch.0.weight", None, None),
])  # fmt: skip
def test_shapes_that_tell_no_network(key, shape, words):
    shapes = shapes_of(TINY_MM_PIXEL)
    assert XPredParams(**params_from(shapes)) == TINY_MM_PIXEL
    shapes[key] = shape
    if shape is None:
        del shapes[key]
    with pytest.raises(KeyError if shape is None else ValueError, match=words):
        params_from(shapes)


@kinds
@pytest.mark.parametrize(
    "shape", [None, (), (0,), (7,), (1, 1), (2, 0), (5, 3, 2), (1, 2, 3, 0), (3, 1, 2, 2), (1,) * 5]
)
def test_any_wrong_shape_is_refused_or_tells_something(params, shape):
    shapes = shapes_of(params)
    for key in shapes:
        wrong = {name: size for name, size in shapes.items() if name != key}
        if shape is not None:
            wrong[key] = shape
        for ask in (lambda shapes: XPredParams(**params_from(shapes)), inner_width, guess_image_size):
            try:
                ask(wrong)
            except (KeyError, ValueError):
                pass
