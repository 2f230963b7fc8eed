"""Alignment with an encoder: which tokens, on which grid, and how far from its features."""

import pytest
import torch
import torch.nn.functional as F
from helpers import close, randn
from pixelhdm_cases import find, load
from xpred_cases import TINY, TINY_MM, TINY_MM_PIXEL, TINY_PIXEL, family_of
from xpred_cases import tiny as tiny_xpred

import pixeldit_core as pc
from pixeldit_core.model import Model, ModelSpec
from pixeldit_core.training.config import RepaConfig
from pixeldit_core.training.repa import (
    STREAMS,
    ConvProjector,
    PatchTokens,
    alignment_loss,
    build_projector,
    resample_student,
    spatially_normalized,
)


def patches_of(model, block, x, *condition):
    """Patches that `PatchTokens` takes in a call of the network, and their grid."""
    tokens = PatchTokens(model, block)
    with tokens.recording():
        model.network(x, torch.full((len(x),), 0.5), *condition)
    return tokens.take_patches(x.shape[2:])


def entering(module, call):
    """What a module is called with in `call()`."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    result = call()
    hook.remove()
    return seen[0], result


def test_every_family_has_patches():
    assert set(STREAMS) == set(pc.FAMILIES)


def test_a_block_counts_from_one(tiny):
    model, x = tiny(), randn(2, 3, 16, 24)
    first, (tokens, grid) = entering(
        model.network.patch_blocks[1], lambda: patches_of(model, 1, x, torch.tensor([0, 1]))
    )
    assert torch.equal(tokens, first) and tokens.shape == (2, 24, 24) and grid == (4, 6)
    for block in (0, 3):
        with pytest.raises(ValueError, match=f"block is {block}; the network has patch blocks 1 to 2"):
            PatchTokens(model, block)


def test_the_text_stream_is_left_out(tiny_t2i):
    model, x = tiny_t2i(), randn(2, 3, 16, 24)
    first, (tokens, grid) = entering(model.network.patch_blocks[1], lambda: patches_of(model, 1, x, randn(2, 5, 12)))
    assert torch.equal(tokens, first) and tokens.shape == (2, 24, 24) and grid == (4, 6)


@pytest.mark.parametrize("params", [TINY, TINY_MM], ids=["dit", "mmdit"])
def test_registers_are_cut_off(params):
    model = Model(ModelSpec(family_of(params), params), tiny_xpred(params))
    x = randn(2, 3, 12, 8)
    last, (tokens, grid) = entering(model.network.final_layer, lambda: patches_of(model, 2, x, torch.tensor([0, 1])))
    assert torch.equal(tokens, last) and grid == (3, 2) and tokens.shape == (2, 6, 12)


@pytest.mark.parametrize("params", [TINY_PIXEL, TINY_MM_PIXEL], ids=["pixeldit", "mmpixeldit"])
def test_a_grid_is_rounded_down_where_the_network_does(params):
    model = Model(ModelSpec(family_of(params), params), tiny_xpred(params))
    x = randn(2, 3, 14, 8)  # a remainder of two rows
    image, (tokens, grid) = entering(model.network.up_conv, lambda: patches_of(model, 2, x, torch.tensor([0, 1])))
    assert grid == (3, 2) and tokens.shape == (2, 6, 12)
    patches = tokens.transpose(1, 2).unflatten(2, grid)
    close(F.interpolate(patches, x.shape[2:], mode="bilinear", align_corners=False), image, 1e-6)


def test_text_tokens_before_the_patches_are_cut_off(golden):
    """Padding after the text does not reach a patch, so it is not among what is taken."""
    network = load(find("05_forward_odd_masks"))
    model = Model(ModelSpec(pc.FAMILIES["pixelhdm"], network.params), network)
    p, width = network.params.patch_size, network.params.hidden_dim
    x, text, pooled = randn(1, 3, 2 * p, 3 * p), randn(1, 4, width), randn(1, width)
    tokens, grid = patches_of(model, 1, x, text, torch.ones(1, 4), pooled)
    padded, _ = patches_of(model, 1, x, F.pad(text, (0, 0, 0, 3)), F.pad(torch.ones(1, 4), (0, 3)), pooled)
    assert grid == (2, 3) and tokens.shape == (1, 6, width)
    close(tokens, padded, 1e-5)


def test_nothing_is_kept_outside_of_a_recording(tiny):
    model = tiny()
    tokens = PatchTokens(model, 1)
    model.network(randn(1, 3, 16, 16), torch.zeros(1), torch.tensor([0]))
    assert tokens.take() == []


def config(**changes):
    return RepaConfig(**{"weight": 2.0, **changes})


def test_the_student_is_averaged_onto_fewer_tokens_and_stretched_onto_more():
    tokens = torch.arange(24.0).view(1, 24, 1)  # 4 x 6
    fewer = resample_student(tokens, (4, 6), (2, 3))
    assert fewer.flatten().tolist() == [3.5, 5.5, 7.5, 15.5, 17.5, 19.5]
    more = resample_student(fewer, (2, 3), (2, 6))
    assert more.flatten().tolist()[:6] == [3.5, 4.0, 5.0, 6.0, 7.0, 7.5]


@pytest.mark.parametrize("grid, other", [((4, 6), (2, 3)), ((2, 3), (4, 6)), ((4, 2), (2, 4))])
@pytest.mark.parametrize("resample", ["student", "larger"])
def test_smooth_tokens_agree_on_any_grid(grid, other, resample):
    """The same picture of two channels on two grids, also not square: far off if rows and columns were mixed up."""

    def on(rows, columns):
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        return torch.stack([y, x, y * 0 + 0.1], dim=-1).flatten(0, 1)[None]

    loss = alignment_loss(on(*grid), grid, on(*other), other, config(resample=resample, weight=1.0))
    assert loss.shape == (1,) and loss.item() < 0.02
    turned = alignment_loss(on(*grid).flip(-1), grid, on(*other), other, config(resample=resample, weight=1.0))
    assert turned.item() > 0.1


def test_the_larger_grid_gives_way():
    """Bilinear, whichever it is (spec: official, 7)."""
    small, large = randn(1, 6, 5, seed=1), randn(1, 24, 5, seed=2)
    image = large.transpose(1, 2).unflatten(2, (4, 6))
    resized = F.interpolate(image, (2, 3), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    expected = 2 * (1 - F.cosine_similarity(small, resized, dim=-1).mean(1))
    close(alignment_loss(small, (2, 3), large, (4, 6), config(resample="larger")), expected)
    close(alignment_loss(large, (4, 6), small, (2, 3), config(resample="larger")), expected)


def test_similarities():
    a, b = randn(2, 4, 5, seed=1), randn(2, 4, 5, seed=2)
    cosine = F.cosine_similarity(a, b, dim=-1).mean(1)
    close(alignment_loss(a, (2, 2), b, (2, 2), config()), 2 - 2 * cosine)
    close(alignment_loss(a, (2, 2), b, (2, 2), config(similarity="negative_cosine")), -2 * cosine)
    close(alignment_loss(3 * b, (2, 2), b, (2, 2), config()), torch.zeros(2))
    normalized = alignment_loss(a, (2, 2), b, (2, 2), config(projector="conv"))
    close(normalized, 2 - 2 * F.cosine_similarity(a, spatially_normalized(b), dim=-1).mean(1))
    close(spatially_normalized(b).mean(1), torch.zeros(2, 5))
    close(spatially_normalized(b).std(1), torch.ones(2, 5))


def test_projectors():
    tokens = randn(2, 6, 8)
    mlp = build_projector(RepaConfig(), 8, 5)
    assert [tuple(p.shape) for p in mlp.parameters()] == [(8, 8), (8,), (8, 8), (8,), (5, 8), (5,)]
    assert mlp(tokens, (2, 3)).shape == (2, 6, 5)
    wide = build_projector(RepaConfig(hidden_size=20), 8, 5)
    assert tuple(wide[2].weight.shape) == (20, 20)
    conv = build_projector(RepaConfig(projector="conv"), 64, 32)
    assert isinstance(conv, ConvProjector) and not conv.bias.any()
    assert conv.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)  # Kaiming, fan out
    tokens = torch.zeros(1, 12, 64)
    tokens[0, 5] = 1.0  # row 1, column 1 of 3 x 4
    reached = conv(tokens, (3, 4)).abs().sum(-1).view(3, 4) > 0
    assert reached.tolist() == [[True, True, True, False]] * 3
