"""The x-prediction networks against the reference program's data: outputs, weights, keys and shapes."""

import dataclasses
from functools import partial

import pytest
import torch
from helpers import max_distance, record_output, relative_l2
from xpred_cases import CLASSES, DATASETS, FILES, case_params, find, load, preset_params, weights_of

from pixeldit_core.families.xpred.from_shapes import guess_image_size, inner_width, params_from
from pixeldit_core.families.xpred.network import (
    network_class,
)
from pixeldit_core.families.xpred.params import XPredParams

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


def arguments(test, inputs):
    return [None if test["inputs"][name] is None else inputs[test["inputs"][name]] for name in ("x", "t", "y")]


def record(network, length):
    """Golden intermediates by name, filled by forward hooks; `length` patches come before any registers."""
    seen = {}
    keep = partial(record_output, seen)

    def keep_tokens(name, module):
        if network.has_registers:
            keep(f"{name}.img", module, lambda _, result: result[:, :length])
            keep(f"{name}.reg", module, lambda _, result: result[:, length:])
        else:
            keep(name, module)

    blocks = network.dit_blocks if network.has_pixel_pathway else network.blocks
    keep("condition", blocks[0], lambda arguments, _: arguments[1])
    keep("time_sinusoid", network.time_mlp[0])
    keep("t_emb", network.time_mlp)
    keep_tokens("block0.attn", blocks[0].attn)
    for i, block in enumerate(blocks):
        keep_tokens(f"block{i}", block)
    if network.has_pixel_pathway:
        keep("pixel_cond_map", network.up_conv)
        keep("pit0.attn", network.pit_blocks[0].attn)
        for i, block in enumerate(network.pit_blocks):
            keep(f"pit{i}", block)
    return seen


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in VARIANTS)))
def test_every_forward_and_every_intermediate(name):
    case = find(name)
    tests = [test for test in case.case["tests"] if test["kind"] == "forward"]
    assert tests
    for test in tests:
        network = load(case, test["weights"])
        x, time, labels = arguments(test, case.inputs)
        p = network.params.patch_size
        seen = record(network, (x.shape[2] // p) * (x.shape[3] // p))
        seen["pred"] = network(x, time, labels)
        assert set(test["outputs"]) in ({"pred"}, set(seen))
        for key, place in test["outputs"].items():
            assert max_distance(seen[key], case.outputs[place]) <= OUTPUT, f"{test['name']}: {key}"


@pytest.mark.parametrize("name", (*FILES, *(f"preset-{preset}-mnist" for preset in VARIANTS)))
def test_parameter_counts_of_the_cases(name):
    case = find(name)
    assert sum(value.numel() for value in weights_of(case).values()) == case.case["param_count"]


@pytest.mark.parametrize("preset", VARIANTS)
def test_synthetic_weights_are_the_recorded_ones(preset):
    case = find(f"preset-{preset}-mnist")
    weights = weights_of(case)
    for key, expected in case.case["recipe_checksums"].items():
        assert weights[key].double().sum().item() == pytest.approx(expected, abs=1e-9), key


def test_a_prediction_inside_the_training_loss():
    case = find("flow-loss")
    tests = [test for test in case.case["tests"] if test["kind"] == "loss"]
    assert tests
    for test in tests:
        names = test["outputs"]
        x, time, labels, expected = (case.outputs[names[key]] for key in ("x_t", "t", "y_used", "pred_x1"))
        assert max_distance(load(case, test["weights"])(x, time, labels), expected) <= OUTPUT


@pytest.mark.parametrize("preset, dataset", NETWORKS)
def test_keys_and_parameter_counts_of_the_variants(published_keys, preset, dataset):
    expected = published_keys(f"xpred-{preset}-{dataset}")
    params = preset_params(preset, dataset)
    assert network_class(params) is CLASSES[expected["class"]]
    with torch.device("meta"):
        network = network_class(params)(params)
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == expected["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["param_count"]


def check_params(shapes, params):
    """All params follow from shapes but mean and std and, where nothing shows them, heads and image_size."""
    detected = params_from(shapes)
    undetermined = {"image_mean", "image_std"}
    undetermined |= set() if params.pixel_depth and params.use_abs_pe else {"image_size"}
    undetermined |= set() if params.qk_norm else {"heads", "dim_head"}
    undetermined |= (
        set() if params.pixel_depth else {"pixel_dim", "pixel_depth", "compress_ratio", "pixel_mlp_hidden_dim"}
    )
    assert set(detected) == {field.name for field in dataclasses.fields(XPredParams)} - undetermined
    assert XPredParams(**{name: getattr(params, name) for name in undetermined}, **detected) == params
    assert inner_width(shapes) == params.heads * params.dim_head
    size = params.image_size if params.pixel_depth else params.grid * params.patch_size
    assert guess_image_size(shapes) == (size if params.use_abs_pe else None)


@pytest.mark.parametrize("preset, dataset", NETWORKS)
def test_params_of_the_variants_follow_from_shapes(published_keys, preset, dataset):
    keys = published_keys(f"xpred-{preset}-{dataset}")["keys"]
    check_params({key: tuple(shape) for key, shape in keys.items()}, preset_params(preset, dataset))


@pytest.mark.parametrize("name", FILES)
def test_params_of_a_file_follow_from_shapes(name):
    case = find(name)
    check_params({key: tuple(value.shape) for key, value in weights_of(case).items()}, case_params(case.case))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
@pytest.mark.parametrize("name", ["dit-r1-layernorm-noape", "mmdit-r1", "pixeldit-r1", "mmpixeldit-r1"])
def test_half_precision_stays_near_float32(name, dtype, tolerance):
    case = find(name)
    network = load(case, dtype=dtype)
    for test in (test for test in case.case["tests"] if test["name"] in ("fwd", "fwd_other_size")):
        x, time, labels = arguments(test, case.inputs)
        output = network(x.to(dtype), time, labels)
        expected = case.outputs[test["outputs"]["pred"]]
        assert output.dtype == dtype
        assert relative_l2(output.float(), expected) < tolerance
