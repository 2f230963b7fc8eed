"""The x-prediction networks against the reference program's data, and what they refuse."""

import dataclasses
import json
import math
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pixeldit_core.networks.layers import scaled_dot_product
from pixeldit_core.networks.positions import rope_grid
from pixeldit_core.networks.xpred import (
    XPredDiT,
    XPredMMDiT,
    XPredMMPixelDiT,
    XPredParams,
    XPredPixelDiT,
    guess_image_size,
    inner_width,
    network_class,
    params_from,
)
from pixeldit_core.networks.xpred_layers import add_positions

TESTS = Path(__file__).parents[1]
PLACES = (TESTS / "golden", TESTS.parent.parent / "shared" / "golden")
CLASSES = {"DiT": XPredDiT, "MMDiT": XPredMMDiT, "PixelDiT": XPredPixelDiT, "MMPixelDiT": XPredMMPixelDiT}
FILES = (
    "dit-r1",
    "dit-r1-layernorm-noape",
    "dit-r2",
    "mmdit-r1",
    "mmdit-r2",
    "pixeldit-r1",
    "pixeldit-r2",
    "mmpixeldit-r1",
    "mmpixeldit-r2",
)
PRESETS = ("dit-tiny-4", "mmdit-tiny-4", "pixeldit-tiny-4", "mmpixeldit-tiny-4")
DATASETS = {"mnist": (28, 1), "cifar10": (32, 3), "imagenet": (256, 3)}
LEGACY = ("legacy-pixeldit", "legacy-mmpixeldit")
NETWORKS = [
    *((preset, dataset) for preset in PRESETS for dataset in DATASETS),
    *((preset, dataset) for preset in LEGACY for dataset in ("mnist", "cifar10")),
]
TABLES = ("class_registers", "register_pos_embed", "pos_embedding", "semantic_pos_embedding", "pixel_pos_embedding")
NORMS = ("norm1.weight", "norm2.weight", "norm_final.weight", "q_norm.weight", "k_norm.weight")

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


def preset_params(preset, dataset="mnist"):
    size, channels = DATASETS[dataset]
    pixel = dict(pixel_dim=16, pixel_depth=2, compress_ratio=4, pixel_mlp_hidden_dim=64, qk_norm="rmsnorm")
    return XPredParams(
        dim=128,
        depth=6,
        in_channels=channels,
        image_size=size,
        patch_size=16 if "legacy" in preset else 4,
        num_registers=4 if "mm" in preset else 0,
        mlp_hidden_dim=512,
        **(pixel if "pixel" in preset else {}),
    )


def case_params(case):
    """Sizes of a case: of a file with a model's configuration, of one without, or of a preset."""
    if "preset" in case:
        return preset_params(case["preset"].replace("/", "-"), case["dataset"])
    told = case.get("model_config") or case["constructor"]
    data, pixels = case["dataset_config"], "Pixel" in case["network"]
    dim, depth = (told["dit_dim"], told["dit_depth"]) if pixels else (told["dim"], told["depth"])
    pixel = {}
    if pixels:
        pixel = dict(pixel_dim=told["pit_dim"], pixel_depth=told["pit_depth"], compress_ratio=told["compress_ratio"])
        pixel["pixel_mlp_hidden_dim"] = int(told["pit_dim"] * told["mlp_ratio"])
    return XPredParams(
        dim=dim,
        depth=depth,
        heads=told["heads"],
        dim_head=told["dim_head"],
        patch_size=told["patch_size"] if "patch_size" in told else told["semantic_patch_size"],
        in_channels=data["in_channels"],
        num_classes=data["num_classes"],
        mlp_hidden_dim=int(dim * told["mlp_ratio"]),
        qk_norm=told.get("qk_norm") or "",
        num_registers=told["num_registers"] if "MM" in case["network"] else 0,
        use_abs_pe=told.get("use_abs_pe", True),
        image_size=data["image_size"],
        image_mean=tuple(data["normalize_mean"]),
        image_std=tuple(data["normalize_std"]),
        **pixel,
    )


def find(name):
    """A golden case. Its `checkpoint` says more than a name, so the fixture `golden` does not read it."""
    for place in PLACES:
        folder = place / "xpred" / name
        if (folder / "case.json").exists():
            case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
            inputs, outputs = (load_file(folder / f"{part}.safetensors") for part in ("inputs", "outputs"))
            return SimpleNamespace(folder=folder, case=case, inputs=inputs, outputs=outputs)
    pytest.skip(f"golden case xpred/{name} is neither in tests/golden nor in ../shared/golden")


def recipe_value(key, shape, tag="preset-ema/"):
    """A tensor of the golden data's synthetic weights (spec: xpred, section 9)."""
    a = np.random.RandomState(zlib.crc32((tag + key).encode())).standard_normal(shape).astype(np.float32)
    if key in TABLES or key == "class_embed.weight":
        return torch.from_numpy(np.float32(0.5) * a)
    if key.endswith(NORMS):
        return torch.from_numpy(1 + np.float32(0.1) * a)
    if len(shape) == 1:
        return torch.from_numpy(np.float32(0.2) * a)
    fan = shape[0] if key.endswith("attn.expand.proj.weight") else math.prod(shape[1:])
    return torch.from_numpy(np.float32(1 / math.sqrt(fan)) * a)


def weights_of(found, kind="ema"):
    """Tensors of a case's file, or of its recipe."""
    if "preset" in found.case:
        with torch.device("meta"):
            shapes = network_class(case_params(found.case))(case_params(found.case)).state_dict()
        return {key: recipe_value(key, tuple(value.shape)) for key, value in shapes.items()}
    stored = torch.load(found.folder / found.case["checkpoint"]["file"], weights_only=True)
    ema = stored.get("ema_model_state_dict") if kind == "ema" else None
    return stored["model_state_dict"] if ema is None else ema


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
        if not network.registers:
            keep(module, name)
            return
        module.register_forward_hook(
            lambda _, arguments, result: seen.update(
                {f"{name}.img": result[:, :length], f"{name}.reg": result[:, length:]}
            )
        )

    blocks = getattr(network, network.stack)
    blocks[0].register_forward_hook(lambda _, arguments, result: seen.update(condition=arguments[1]))
    keep(network.time_mlp[0], "time_sinusoid")
    keep(network.time_mlp, "t_emb")
    keep_tokens(blocks[0].attn, "block0.attn")
    for i, block in enumerate(blocks):
        keep_tokens(block, f"block{i}")
    if network.pixels:
        keep(network.up_conv, "pixel_cond_map")
        keep(network.pit_blocks[0].attn, "pit0.attn")
        for i, block in enumerate(network.pit_blocks):
            keep(block, f"pit{i}")
    return seen


def far(actual, expected):
    """Largest distance of any value."""
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in PRESETS)))
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
            assert far(seen[key], found.outputs[place]) <= test["suggested_atol"], f"{test['name']}: {key}"


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in PRESETS)))
def test_parameter_counts_of_the_cases(name):
    found = find(name)
    assert sum(value.numel() for value in weights_of(found).values()) == found.case["param_count"]


@pytest.mark.parametrize("preset", PRESETS)
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
        assert far(load(found, test["weights"])(x, time, labels), expected) <= 2e-5


@pytest.mark.parametrize("preset, dataset", NETWORKS)
def test_keys_and_parameter_counts_of_the_presets(published_keys, preset, dataset):
    expected = published_keys(f"xpred-{preset}-{dataset}")
    params = preset_params(preset, dataset)
    assert network_class(params) is CLASSES[expected["class"]]
    with torch.device("meta"):
        network = network_class(params)(params)
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == expected["keys"]
    assert list(found) == list(expected["keys"])  # the order of an optimiser's state
    assert [name for name, _ in network.named_parameters()] == list(found)
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
