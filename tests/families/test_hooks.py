"""What a program around a network can act on: the way through the patch blocks, and positions."""

import dataclasses
import itertools

import pytest
import torch
from factories import fill
from families.test_network_inputs import HDM, PIXELS, XPRED
from pixeldit2_cases import TINY as PIXELDIT2

import pixeldit_core as pc
from pixeldit_core.layers.blocks import ALL, as_streams

OFFICIAL = {"hidden_size": 24, "num_groups": 2, "patch_depth": 2, "pixel_depth": 1, "patch_size": 4}
NARROW = {"pixel_hidden_size": 4, "pixel_attn_hidden_size": 24, "pixel_num_groups": 2}
CASES = {
    "pixeldit": (pc.PixelDiTParams(**OFFICIAL, pixel_hidden_size=4, num_classes=3), slice(None), 1),
    "pixeldit_t2i": (pc.PixelDiTT2IParams(**OFFICIAL, **NARROW, txt_embed_dim=8, txt_max_length=5), slice(None), 2),
    "xpred_dit": (XPRED, slice(0, 9), 1),
    "xpred_mmdit": (dataclasses.replace(XPRED, num_registers=2), slice(0, 9), 1),
    "xpred_pixeldit": (PIXELS, slice(0, 9), 1),
    "pixeldit2": (PIXELDIT2, (slice(None), slice(3, None)), 1),  # before and after its context tokens enter
    "pixelhdm": (dataclasses.replace(HDM, patch_layers=2), slice(5, None), 1),
}


def case(family):
    params, image, streams = CASES[family]
    model = pc.build_model(family, params, device="cpu")
    fill(model.network, scale=0.3)
    generator = torch.Generator().manual_seed(0)
    condition = torch.tensor([1, 2])
    if family in ("pixeldit_t2i", "pixelhdm"):
        width = params.txt_embed_dim
        condition = torch.randn(2, 5, width, generator=generator)
    x = torch.randn(2, params.in_channels, 12, 12, generator=generator)
    return model, x, condition, image, streams


@pytest.mark.parametrize("family", CASES)
def test_a_network_around_sees_and_replaces_what_the_patch_blocks_do(family):
    model, x, condition, image, count = case(family)
    places = image if isinstance(image, tuple) else (image,)
    plain, seen, calls = model.velocity(x, 0.5, condition), [], itertools.product((1, 3), places)

    def run_blocks(blocks, streams, vector, rope, place, part=ALL, **options):
        factor, expected = next(calls)
        assert place == expected and len(streams) == count
        assert streams[0][:, place].shape[:2] == (2, 9) and options["note"] == 7
        for block in blocks[part]:
            streams = as_streams(block(*streams, vector, rope, **options))
            seen.append(streams)
        return tuple(stream * factor for stream in streams)

    model.network.run_blocks = run_blocks
    for same in (True, False):
        assert torch.equal(model.velocity(x, 0.5, condition, note=7), plain) == same
    assert next(calls, None) is None
    assert len(seen) == 2 * sum(1 for name, _ in model.network.named_modules() if is_patch_block(name))


def is_patch_block(name):
    return name.split(".")[0] in ("patch_blocks", "dit_blocks", "blocks") and name.count(".") == 1


@pytest.mark.parametrize("family", CASES)
def test_positions_can_be_moved(family):
    model, x, condition, *_ = case(family)
    plain = model.velocity(x, 0.5, condition)
    assert torch.equal(model.velocity(x, 0.5, condition, move=lambda positions, axis: positions.clone()), plain)
    for moved_axis in (0, 1):

        def move(positions, axis, moved_axis=moved_axis):
            return positions * 2 if axis == moved_axis else positions

        assert not torch.allclose(model.velocity(x, 0.5, condition, move=move), plain, atol=1e-6), moved_axis
