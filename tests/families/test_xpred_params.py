"""Params and shapes of the x-prediction networks, and those that are rejected."""

import contextlib
import dataclasses
import math

import pytest
from xpred_cases import CLASSES, KINDS, TINY, TINY_MM_PIXEL, TINY_PIXEL, each_network, tiny

from pixeldit_core.families.xpred.from_shapes import guess_image_size, inner_width, params_from
from pixeldit_core.families.xpred.network import (
    network_class,
)
from pixeldit_core.families.xpred.params import XPredParams


@pytest.mark.parametrize("network", CLASSES.values())
def test_each_network_takes_only_params_of_its_kind(network):
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
def test_params_that_no_network_can_have(changes, words):
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
def test_shapes_of_no_network(key, shape, words):
    shapes = shapes_of(TINY_MM_PIXEL)
    assert XPredParams(**params_from(shapes)) == TINY_MM_PIXEL
    shapes[key] = shape
    if shape is None:
        del shapes[key]
    with pytest.raises(KeyError if shape is None else ValueError, match=words):
        params_from(shapes)


@each_network
@pytest.mark.parametrize(
    "shape", [None, (), (0,), (7,), (1, 1), (2, 0), (5, 3, 2), (1, 2, 3, 0), (3, 1, 2, 2), (1,) * 5]
)
def test_any_wrong_shape_is_rejected_or_valid(params, shape):
    shapes = shapes_of(params)
    for key in shapes:
        wrong = {name: size for name, size in shapes.items() if name != key}
        if shape is not None:
            wrong[key] = shape
        for ask in (lambda shapes: XPredParams(**params_from(shapes)), inner_width, guess_image_size):
            with contextlib.suppress(KeyError, ValueError):
                ask(wrong)
