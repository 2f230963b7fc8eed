"""LoRA files as ComfyUI's Train LoRA writes them: differences of norms and biases, and matrices for convolutions."""

import math

import pytest
import torch
from checkpoints.lora_files import (
    ALPHA,
    MODULATION,
    PATHS,
    RANK,
    STYLES,
    agree,
    fails,
    pairs_for,
    random_pair,
    saved,
    shapes_of,
    written,
)
from checkpoints.lora_files import expected as with_pairs
from factories import fill
from safetensors.torch import load_file
from xpred_cases import TINY_PIXEL

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors
from pixeldit_core.checkpoints.lora import read_lora
from pixeldit_core.checkpoints.lora_difference import Difference, split_difference

NORM, BIAS = "patch_blocks.0.norm_x1.weight", "pixel_blocks.0.attn.proj.bias"


def differences_for(model):
    """Of a norm, of a bias whose weight has a pair (PATHS), and of a whole pixel modulation."""
    generator = torch.Generator().manual_seed(3)
    shapes = shapes_of(model)
    return {name: torch.randn(shapes[name], generator=generator) for name in (NORM, BIAS, f"{MODULATION}.0.bias")}


def written_differences(differences, before="diffusion_model.", flat=False):
    tensors = {}
    for name, value in differences.items():
        module, _, kind = name.rpartition(".")
        module = before + (module.replace(".", "_") if flat else module)
        tensors[f"{module}.{'diff_b' if kind == 'bias' else 'diff'}"] = value.clone()
    return tensors


def expected(model, pairs, differences, strength=1.0):
    state = with_pairs(model, pairs, strength * ALPHA / RANK)
    return state | {name: state[name] + strength * value for name, value in differences.items()}


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style['before']}*.{style['up']}")
def test_every_style_of_names(tiny_t2i, tmp_path, style):
    model = tiny_t2i()
    pairs, differences = pairs_for(shapes_of(model)), differences_for(model)
    state = expected(model, pairs, differences)
    names = {key: style[key] for key in ("before", "flat") if key in style}
    tensors = written(pairs, **style) | written_differences(differences, **names)
    path = saved(tmp_path / "lora.safetensors", tensors)
    lora = read_lora(path, shapes_of(model))
    assert set(lora.differences) == set(differences) and set(lora.pairs) == {f"{path}.weight" for path in PATHS}
    assert (lora.applied, lora.total, lora.unknown) == (len(PATHS) + 2, len(PATHS) + 2, ())
    assert pc.apply_lora(model, path) == len(PATHS) + 3
    agree(model, state)


def test_a_file_of_differences_alone(tiny_t2i, tmp_path):
    model = tiny_t2i()
    differences = differences_for(model)
    state = expected(model, {}, differences, 0.5)
    path = saved(tmp_path / "norms.safetensors", written_differences(differences))
    assert pc.apply_lora(model, path, 0.5) == 3
    agree(model, state)


def test_merged_into_a_file(tiny_t2i, tmp_path):
    model = tiny_t2i()
    pairs, differences = pairs_for(shapes_of(model)), differences_for(model)
    lora = saved(tmp_path / "lora.safetensors", written(pairs) | written_differences(differences))
    merged = load_file(pc.save_checkpoint(model, tmp_path / "merged.safetensors", loras=[(lora, 0.5)]))
    assert pc.apply_lora(model, lora, 0.5) == len(PATHS) + 3
    agree(model, merged)


@pytest.mark.parametrize("alone", ["msa", "mlp", None])
def test_comfyui_s_halves_of_a_bias_change_the_whole(tiny_t2i, tmp_path, alone):
    """What ComfyUI would do to its own halves, joined, is what is done to the whole."""
    model = tiny_t2i()
    halves, differences = split_tensors(model.network.state_dict()), {}
    for half in ("msa", "mlp"):
        if alone in (half, None):
            name = f"{MODULATION}_{half}.bias"
            differences[name] = torch.randn(halves[name].shape, generator=torch.Generator().manual_seed(len(half)))
            halves[name] = halves[name] + 0.8 * differences[name]
    assert pc.apply_lora(model, saved(tmp_path / "lora.safetensors", written_differences(differences)), 0.8) == 1
    changed = split_tensors(model.network.state_dict())
    for key, value in changed.items():
        torch.testing.assert_close(value, halves[key], atol=2e-6, rtol=1e-6)


def test_the_whole_is_split_for_comfyui_s_halves(tiny_t2i):
    model = tiny_t2i()
    name = f"{MODULATION}.0.bias"
    value = differences_for(model)[name]
    wanted = split_tensors({**model.network.state_dict(), name: value})
    found = split_difference(name, Difference(value), channels=4)
    assert set(found) == {f"{MODULATION}_{half}.bias" for half in ("msa", "mlp")}
    assert all(torch.equal(part.value, wanted[half]) for half, part in found.items())
    assert split_difference(BIAS, Difference(value), 4)[BIAS].value is value


def test_differences_that_do_not_fit(tiny_t2i, tmp_path):
    model = tiny_t2i()
    path = tmp_path / "lora.safetensors"
    saved(path, written_differences({NORM: torch.zeros(25)}))
    fails(model, path, f"a difference of [25] does not fit {NORM}, which is [24]", "another size of network")
    saved(path, {"diffusion_model.patch_blocks.0.norm_x1.diff_b": torch.zeros(24)})
    fails(model, path, "patch_blocks.0.norm_x1.bias, which this network does not have")
    saved(path, written_differences({f"{MODULATION}_msa.bias": torch.zeros(4)}))
    fails(model, path, f"[4] does not fit {MODULATION}_msa.bias, which is [192]")
    both = {f"{MODULATION}.0.bias": torch.zeros(384), f"{MODULATION}_msa.bias": torch.zeros(192)}
    saved(path, written_differences(both))
    fails(model, path, f"changes {MODULATION}.0.bias and ComfyUI's halves", "Save one alone")
    pairs = pairs_for(shapes_of(model), PATHS[:1])
    size = shapes_of(model)[f"{PATHS[0]}.weight"]
    saved(path, written(pairs) | {f"diffusion_model.{PATHS[0]}.diff": torch.zeros(size)})
    fails(model, path, f"a pair and a difference for {PATHS[0]}.weight", "Save one alone")
    saved(path, written_differences({"double_blocks.0.norm.weight": torch.zeros(4)}))
    fails(model, path, "none of its 1 modules is in this network", "made for Flux")


@pytest.fixture
def convolutional():
    model = pc.build_model("xpred_pixeldit", TINY_PIXEL, device="cpu")
    fill(model.network)
    return model


@pytest.mark.parametrize("matrices", [True, False])
def test_a_convolution_by_matrices_or_by_convolutions(convolutional, tmp_path, matrices):
    shapes, state = shapes_of(convolutional), dict(convolutional.network.state_dict())
    names = [key.removesuffix(".weight") for key, shape in shapes.items() if len(shape) == 4]
    assert names
    pairs = {}
    for name in names:
        rows, *rest = shapes[f"{name}.weight"]
        up, down = random_pair(rows, math.prod(rest))
        state[f"{name}.weight"] = state[f"{name}.weight"] + ALPHA / RANK * (up @ down).view(rows, *rest)
        pairs[name] = [up, down] if matrices else [up[..., None, None], down.view(RANK, *rest)]
    assert pc.apply_lora(convolutional, saved(tmp_path / "lora.safetensors", written(pairs))) == len(names)
    agree(convolutional, state)


def test_a_convolution_of_another_size(convolutional, tmp_path):
    name, shape = next((key, shape) for key, shape in shapes_of(convolutional).items() if len(shape) == 4)
    rows, columns, *_ = shape
    up, down = random_pair(rows, columns)
    path = saved(tmp_path / "lora.safetensors", written({name.removesuffix(".weight"): [up, down]}))
    fails(convolutional, path, f"for {name}, which is {list(shape)}")
    wrong = [up[..., None, None], down[..., None, None].expand(RANK, columns, 5, 5)]
    fails(convolutional, saved(path, written({name.removesuffix(".weight"): wrong})), f"which is {list(shape)}")
