"""The text-to-image model in ComfyUI's layout, whose pixel blocks are split in halves."""

import dataclasses

import pytest
import torch
from checkpoints.files import golden_weights, prefixed, same
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors

MODULATION = "pixel_blocks.0.adaLN_modulation"


def test_a_row_of_the_split_is_where_the_formula_says(tiny_t2i):
    """Whole: row q * 6C + k * C + c; halves: q * 3C + (k mod 3) * C + c, of three maps each."""
    state = tiny_t2i().network.state_dict()
    halves = split_tensors(state)
    channels, pixels = 4, 16
    for block in range(2):
        name = f"pixel_blocks.{block}.adaLN_modulation"
        for kind in ("weight", "bias"):
            whole = state[f"{name}.0.{kind}"]
            msa, mlp = halves[f"{name}_msa.{kind}"], halves[f"{name}_mlp.{kind}"]
            assert len(whole) == 6 * channels * pixels and len(msa) == len(mlp) == len(whole) // 2
            assert whole.unique(dim=0).shape == whole.shape
            for q in range(pixels):
                for k in range(6):
                    for c in range(channels):
                        row = whole[q * 6 * channels + k * channels + c]
                        half = msa if k < 3 else mlp
                        assert torch.equal(half[q * 3 * channels + k % 3 * channels + c], row), (q, k, c)
    others = {key for key in state if ".adaLN_modulation.0." not in key}
    assert others < set(halves) and all(halves[key] is state[key] for key in others)


def test_saved_for_comfyui_and_loaded_again(tiny_t2i, tmp_path):
    model = tiny_t2i()
    state = model.network.state_dict()
    path = pc.save_checkpoint(model, tmp_path / "comfy.safetensors", "comfyui")
    names = {"core." + key for key in state if ".adaLN_modulation.0." not in key}
    for block in range(2):
        for half in ("msa", "mlp"):
            names |= {f"core.pixel_blocks.{block}.adaLN_modulation_{half}.{kind}" for kind in ("weight", "bias")}
    stored = load_file(path)
    assert set(stored) == names
    assert sum(value.numel() for value in stored.values()) == sum(value.numel() for value in state.values())
    again = pc.load_checkpoint(path)
    assert same(again, state) and again.params == model.params and again.settings == model.settings
    info = pc.inspect_checkpoint(path)
    assert (info.layout, info.params, info.settings, info.class_names) == ("core.", model.params, model.settings, None)
    canonical = pc.save_checkpoint(path, tmp_path / "canonical.safetensors")
    assert set(load_file(canonical)) == set(state) and same(pc.load_checkpoint(canonical), state)
    twice = pc.save_checkpoint(canonical, tmp_path / "twice.safetensors", "comfyui")
    assert all(torch.equal(value, stored[key]) for key, value in load_file(twice).items())


def test_a_file_of_comfyui_is_written_as_comfyui_wrote_it(golden, tmp_path):
    source = golden_weights(golden("comfy-t2i-img2img-inpaint", "peers"))
    path = pc.save_checkpoint(source, tmp_path / "again.safetensors", "comfyui")
    before, after = load_file(source), load_file(path)
    assert set(before) == set(after) and all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_both_layouts_hold_the_same_numbers_in_less_precision(tiny_t2i, tmp_path, dtype):
    model = tiny_t2i()
    paths = [
        pc.save_checkpoint(model, tmp_path / f"{layout}.safetensors", layout, dtype)
        for layout in ("canonical", "comfyui")
    ]
    first, second = (pc.load_checkpoint(path) for path in paths)
    assert same(second, first.network.state_dict()) and not same(first, model.network.state_dict())
    infos = [pc.inspect_checkpoint(path) for path in paths]
    assert infos[0].count == infos[1].count and infos[0].quantization == infos[1].quantization
    x = pc.sample(first, torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(0)), steps=2)
    assert torch.isfinite(x).all()


def test_the_variant_of_four_maps_is_for_the_canonical_layout(tiny_t2i, tmp_path):
    params = dataclasses.replace(tiny_t2i().params, pit_adaln_post_modulation=True)
    model = tiny_t2i(params)
    state = model.network.state_dict()
    assert state[f"{MODULATION}.0.weight"].shape == (4 * 4 * 16, 24)
    again = pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "own.safetensors"))
    assert same(again, state) and again.params == params
    save_file(prefixed("core.", state), tmp_path / "core.safetensors")
    assert pc.load_checkpoint(tmp_path / "core.safetensors").params == params
    for source in (model, tmp_path / "core.safetensors"):
        with pytest.raises(ValueError, match="four maps.*Write the canonical layout instead"):
            pc.save_checkpoint(source, tmp_path / "comfy.safetensors", "comfyui")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core.safetensors", "own.safetensors"]
