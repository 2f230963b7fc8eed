"""Sizes and texts that a network cannot take are refused where they enter, before the network runs."""

import dataclasses

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.sampling import check_size

HDM = pc.PixelHDMParams(
    hidden_dim=16,
    pixel_dim=4,
    patch_size=4,
    patch_layers=1,
    pixel_layers=1,
    num_heads=2,
    num_kv_heads=1,
    mrope_text_dim=4,
    mrope_img_h_dim=2,
    mrope_img_w_dim=2,
    mrope_text_max_len=9,
    mrope_img_max_height=4,
    mrope_img_max_width=6,
)
XPRED = pc.XPredParams(dim=12, depth=1, heads=2, dim_head=6, num_classes=3, image_size=12)
PIXELS = dataclasses.replace(XPRED, pixel_dim=4, pixel_depth=1, compress_ratio=2)
THIRDS = dataclasses.replace(PIXELS, compress_ratio=3)


@pytest.mark.parametrize("family, params, size, words", [
    ("pixelhdm", HDM, (8, 13), "size 13 x 8 .* patches of 4 x 4 pixels. The nearest that does is 12 x 8"),
    ("pixelhdm", HDM, (2, 12), "size 12 x 2 .* nearest that does is 12 x 4"),
    ("pixelhdm", HDM, (0, 12), "size 12 x 0 .* at least 4 x 4 and at most 24 x 16 pixels.* is 12 x 4"),
    ("pixelhdm", HDM, (20, 12), "size 12 x 20 .* at least 4 x 4 and at most 24 x 16 pixels.* is 12 x 16"),
    ("pixelhdm", HDM, (8, 28), "size 28 x 8 .* at most 24 x 16 pixels.* is 24 x 8"),
    ("pixelhdm", HDM, (8, 29), "patches of 4 x 4 pixels. The nearest that does is 24 x 8"),
    ("xpred_dit", XPRED, (10, 8), "size 8 x 10 .* patches of 4 x 4 pixels. The nearest that does is 8 x 8"),
    ("xpred_dit", XPRED, (8, 3), "The nearest that does is 4 x 8"),
    ("xpred_pixeldit", PIXELS, (9, 8), "patches of 2 x 2 pixels. The nearest that does is 8 x 8"),
    ("xpred_pixeldit", PIXELS, (8, 2), "generates at least 4 x 4 pixels. The nearest that does is 4 x 8"),
    ("xpred_pixeldit", THIRDS, (3, 6), "generates at least 6 x 6 pixels. The nearest that does is 6 x 6"),
    ("xpred_mmpixeldit", dataclasses.replace(THIRDS, num_registers=3), (6, 3), "generates at least 6 x 6 pixels"),
])  # fmt: skip
def test_sizes_that_a_network_cannot_take(family, params, size, words):
    with pytest.raises(ValueError, match=words):
        check_size(pc.build_model(family, params).spec, *size)


@pytest.mark.parametrize("family, params, sizes", [
    ("pixelhdm", HDM, [(4, 4), (16, 24), (8, 12)]),
    ("xpred_dit", XPRED, [(4, 4), (8, 40)]),
    ("xpred_pixeldit", PIXELS, [(4, 4), (6, 10)]),
    ("xpred_pixeldit", THIRDS, [(6, 6), (9, 6)]),
])  # fmt: skip
def test_sizes_that_it_can_take(family, params, sizes):
    spec = pc.build_model(family, params).spec
    for size in sizes:
        check_size(spec, *size)


def test_a_size_is_checked_before_the_network_runs(calls):
    model = pc.build_model("pixelhdm", HDM, device="cpu")
    network_calls = calls(model)
    text = pc.text_condition(model, torch.ones(1, 5, 16))
    with pytest.raises(ValueError, match="at most 24 x 16"):
        pc.sample(model, text, size=(20, 12))
    with pytest.raises(ValueError, match="at most 24 x 16"):
        pc.sample(model, text, noise=torch.zeros(1, 3, 20, 12))
    assert not network_calls


TEXT, MASK, POOLED = (2, 5, 16), (2, 5), (2, 16)


@pytest.mark.parametrize("shapes, words", [
    (((2, 5, 12), MASK, POOLED), "text has shape .2, 5, 12.; expected .B, T, 16."),
    (((5, 16), MASK, POOLED), "text has shape"),
    (((2, 10, 16), (2, 10), POOLED), "10 tokens; the model has positions for 9"),
    ((TEXT, (2, 6), POOLED), "mask has shape .2, 6.; the text needs .2, 5."),
    ((TEXT, (3, 5), POOLED), "mask has shape"),
    ((TEXT, (2, 5, 1), POOLED), "mask has shape"),
    ((TEXT, MASK, (3, 16)), "pooled text has shape .3, 16.; expected .2, 16."),
    ((TEXT, MASK, (2, 12)), "pooled text has shape"),
    (((1, 5, 16), MASK, POOLED), "mask has shape"),
])  # fmt: skip
def test_texts_that_do_not_fit(shapes, words):
    model = pc.build_model("pixelhdm", HDM)
    with pytest.raises(ValueError, match=words):
        pc.text_condition(model, *(torch.ones(shape) for shape in shapes))


def test_texts_that_fit():
    model = pc.build_model("pixelhdm", HDM)
    text = torch.ones(2, 9, 16)
    for mask, pooled in ((None, None), (torch.ones(2, 9), torch.ones(2, 16)), (torch.ones(1, 9), torch.ones(1, 16))):
        condition = pc.text_condition(model, text, mask, pooled)
        assert condition[0] is text and condition[1].shape[1] == 9 and condition[2] is pooled


@pytest.mark.parametrize("x, text", [((2, 8, 12, 4), TEXT), ((2, 8, 12, 3), None)], ids=["channels", "mask"])
def test_a_raw_network_asserts(x, text):
    network = pc.build_model("pixelhdm", HDM, device="cpu").network
    with pytest.raises(AssertionError):
        network(torch.zeros(x), torch.tensor(0.4), None if text is None else torch.zeros(text), torch.ones(MASK))
