"""LoRA on ComfyUI's halves of the pixel modulation."""

import dataclasses

import pytest
import torch
from checkpoints.lora_files import (
    ALPHA,
    MODULATION,
    RANK,
    STYLES,
    agree,
    expected,
    fails,
    halves_of,
    random_pair,
    saved,
    shapes_of,
    whole_pair,
    written,
)

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors
from pixeldit_core.checkpoints.lora import merge_lora, read_lora
from pixeldit_core.checkpoints.lora_delta import Lora, Pair, split_pair


def test_a_lora_on_halves_and_one_on_the_whole_give_the_same_weight(tiny_t2i, tmp_path):
    model, split = tiny_t2i(), tiny_t2i()
    pair = whole_pair(model)
    state = expected(model, {f"{MODULATION}.0": pair})
    for style in (STYLES[0], STYLES[3], STYLES[9]):
        model, split = tiny_t2i(), tiny_t2i()
        path = saved(tmp_path / "whole.safetensors", written({f"{MODULATION}.0": pair}, **style))
        assert pc.apply_lora(model, path) == 1
        path = saved(tmp_path / "halves.safetensors", written(halves_of(pair), **style))
        lora = read_lora(path, shapes_of(split))
        assert (lora.total, lora.unknown, list(lora.pairs)) == (2, (), [f"{MODULATION}.0.weight"])
        (joined,) = lora.pairs.values()
        assert joined.alpha is None and joined.scale == 1 and joined.down.shape == (2 * RANK, 24)
        assert pc.apply_lora(split, path) == 1
        agree(model, state)
        agree(split, state)


@pytest.mark.parametrize("alone", ["msa", "mlp", None])
def test_each_half_has_its_own_rank_and_alpha(tiny_t2i, tmp_path, alone):
    """What ComfyUI would do to its own halves, joined, is what is done to the whole."""
    model = tiny_t2i()
    state = model.network.state_dict()
    halves, tensors = split_tensors(state), {}
    for seed, (half, rank, alpha) in enumerate((("mlp", 2, 3.0), ("msa", 5, None))):
        if alone in (half, None):
            name = f"{MODULATION}_{half}"
            pair = random_pair(*halves[f"{name}.weight"].shape, rank, seed)
            tensors |= written({name: pair}, alpha=alpha)
            scale = 1 if alpha is None else alpha / rank
            halves[f"{name}.weight"] = halves[f"{name}.weight"] + 0.8 * scale * pair[0] @ pair[1]
    assert pc.apply_lora(model, saved(tmp_path / "lora.safetensors", tensors), 0.8) == 1
    changed = split_tensors(model.network.state_dict())
    for key, value in changed.items():
        torch.testing.assert_close(value, halves[key], atol=2e-6, rtol=1e-6)


def test_a_pair_of_the_whole_is_split_exactly(tiny_t2i):
    model = tiny_t2i()
    up, down = whole_pair(model)
    name = f"{MODULATION}.0.weight"
    found = split_pair(name, Pair(up, down, ALPHA), channels=4)
    wanted = halves_of([up, down])
    assert set(found) == {f"{half}.weight" for half in wanted}
    for half, pair in wanted.items():
        part = found[f"{half}.weight"]
        assert torch.equal(part.up, pair[0]) and part.down is down and part.alpha == ALPHA
    state = dict(model.network.state_dict())
    whole = merge_lora(state, read_back({name: Pair(up, down, ALPHA)}), 0.7)
    halves = merge_lora(split_tensors(state), read_back(found), 0.7)
    for key, value in split_tensors(whole).items():
        torch.testing.assert_close(value, halves[key], atol=1e-6, rtol=1e-6)
    other = Pair(up, down)
    assert split_pair("patch_blocks.0.attn.proj_x.weight", other, 4) == {"patch_blocks.0.attn.proj_x.weight": other}
    with pytest.raises(ValueError, match=f"{MODULATION}.0.weight has 384 rows, not six maps of 5 channels"):
        split_pair(name, other, 5)


def read_back(pairs):
    return Lora(pairs, (), len(pairs), len(pairs), "made here")


def test_halves_that_do_not_fit_are_named(tiny_t2i, tmp_path):
    model = tiny_t2i()
    pairs = halves_of(whole_pair(model))
    pairs[f"{MODULATION}_mlp"][0] = pairs[f"{MODULATION}_mlp"][0][:-4]
    path = saved(tmp_path / "lora.safetensors", written(pairs))
    fails(model, path, f"[188, 3] x [3, 24] for {MODULATION}_mlp.weight, which is [192, 24]")


def test_the_variant_of_four_maps_has_no_halves(tiny_t2i, tmp_path):
    model = tiny_t2i(dataclasses.replace(tiny_t2i().params, pit_adaln_post_modulation=True))
    pair = whole_pair(model)
    state = expected(model, {f"{MODULATION}.0": pair})
    path = saved(tmp_path / "lora.safetensors", written(halves_of(whole_pair(tiny_t2i()))))
    fails(model, path, "none of its 2 modules is in this network", "another size or variant of PixelDiT")
    assert pc.apply_lora(model, saved(path, written({f"{MODULATION}.0": pair}))) == 1
    agree(model, state)
