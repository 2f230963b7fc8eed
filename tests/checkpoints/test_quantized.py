"""Quantized files: detection in a header, exact numbers, and images as from plain weights."""

import math

import pytest
import torch
from checkpoints.files import prefixed, same, write
from checkpoints.quantized_files import (
    CHOICES,
    LAYER,
    QUANTIZE,
    bytes_of,
    file_of,
    quantize_int8,
    quantize_mxfp8,
    quantize_state,
)
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors
from pixeldit_core.checkpoints.dequantize import dequantize
from pixeldit_core.checkpoints.load import read_weights
from pixeldit_core.checkpoints.quantized import companions, find_quantized, real_shapes

STYLES = {
    "fp8-scaled": "fp8",
    "fp8-metadata": "fp8",
    "fp8-old": "fp8",
    "fp8-plain": "fp8",
    "mxfp8": "mxfp8",
    "int8": "int8",
    "int8-convrot": "int8",
}


def header(tensors):
    return {key: value.dtype for key, value in tensors.items()}, {k: tuple(v.shape) for k, v in tensors.items()}


@pytest.mark.parametrize("style, kind", STYLES.items())
def test_every_number_is_exact(golden, style, kind):
    case, path = file_of(golden, style)
    tensors, metadata = pc.read_checkpoint(path)
    found = find_quantized(*header(tensors), metadata)
    assert found == {f"core.{layer}.weight": kind for layer in case.case["quantized_layers"]}
    wanted = {key.removeprefix("dequant."): value for key, value in case.outputs.items() if key.startswith("dequant.")}
    assert len(wanted) == 6
    for key, value in wanted.items():
        got = dequantize("core." + key, tensors, metadata, tuple(value.shape))
        # turning back is a product of matrices, whose order of adding is a processor's: sums of up to 256 numbers
        tolerance = 1e-6 if style == "int8-convrot" else 0.0
        torch.testing.assert_close(got, value, atol=tolerance, rtol=0, msg=key)
        half = dequantize("core." + key, tensors, metadata, tuple(value.shape), torch.bfloat16)
        assert torch.equal(half, got.to(torch.bfloat16))


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("style, kind", STYLES.items())
def test_a_quantized_file_gives_the_velocity_of_its_plain_numbers(golden, style, kind):
    case, path = file_of(golden, style)
    model = pc.load_checkpoint(path)
    given = case.inputs
    velocity = model.network(given["x"], given["timesteps"], given["context"])
    tolerance = case.case["suggested_atol_velocity"]
    torch.testing.assert_close(velocity, case.outputs["velocity"], atol=tolerance, rtol=0)
    info = pc.inspect_checkpoint(path)
    assert (info.quantization, info.refused, info.dtype, info.params) == (kind, None, torch.float32, model.params)
    assert info.count == sum(parameter.numel() for parameter in model.network.parameters())


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", QUANTIZE)
def test_whatever_is_quantized_comes_back(tiny_t2i, tmp_path, kind, split, chosen):
    """Sizes here are no multiples of 32, and the halves of a modulation join after they are plain numbers."""
    model = tiny_t2i()
    state = model.network.state_dict()
    stored, plain = quantize_state(split_tensors(state) if split else state, kind, CHOICES[chosen])
    save_file(stored, tmp_path / "quantized.safetensors")
    save_file({key: value.contiguous() for key, value in plain.items()}, tmp_path / "plain.safetensors")
    again = pc.load_checkpoint(tmp_path / "quantized.safetensors")
    expected = pc.load_checkpoint(tmp_path / "plain.safetensors")
    assert again.params == model.params and same(again, expected.network.state_dict())
    changed = len(stored) > len(plain)
    assert changed != same(again, state) and changed == (split or "half" not in chosen)
    info = pc.inspect_checkpoint(tmp_path / "quantized.safetensors")
    assert info.quantization == (kind if changed else None) and info.refused is None
    assert info.params == model.params and info.count == sum(value.numel() for value in state.values())


@pytest.mark.parametrize("kind", QUANTIZE)
def test_a_class_network_too_and_its_averaged_weights(tiny, tmp_path, kind):
    model = tiny()
    stored, plain = quantize_state(model.network.state_dict(), kind, CHOICES["blocks"])
    raw = {f"denoiser.{key}": value for key, value in tiny(seed=3).network.state_dict().items()}
    path = tmp_path / "quantized.safetensors"
    save_file(raw | {f"ema_denoiser.{key}": value for key, value in stored.items()}, path)
    assert same(pc.load_checkpoint(path), plain)
    assert not same(pc.load_checkpoint(path, weights="raw"), plain)
    assert read_weights(path, "raw").storage is None and read_weights(path).storage == kind


def test_looked_at_one_by_one_and_in_the_precision_of_the_rest(tiny_t2i, tmp_path):
    state = {key: value.bfloat16() for key, value in tiny_t2i().network.state_dict().items()}
    stored, plain = quantize_state(state, "int8", CHOICES["blocks"])
    path = tmp_path / "quantized.safetensors"
    save_file(stored, path)
    found, full = read_weights(path), read_weights(path, compute_dtype=torch.float32)
    assert set(found.tensors) == set(state) and len(found.tensors) == len(state)
    key = "patch_blocks.0.attn.qkv_x.weight"
    assert torch.equal(full.tensors[key], plain[key]) and torch.equal(found.tensors[key], plain[key].bfloat16())
    assert all(value.dtype == torch.bfloat16 for value in found.tensors.values())
    assert torch.equal(found.tensors.pop(key), plain[key].bfloat16()) and key not in found.tensors
    saved = pc.save_checkpoint(path, tmp_path / "plain.safetensors", "comfyui")
    assert pc.inspect_checkpoint(saved).quantization is None
    assert same(pc.load_checkpoint(saved), {key: value.bfloat16().float() for key, value in plain.items()})


def test_plain_float8_stays_as_it_is(golden):
    found = read_weights(file_of(golden, "fp8-plain")[1])
    assert found.storage == "fp8"
    assert found.tensors["patch_blocks.0.attn.qkv_x.weight"].dtype == torch.float8_e4m3fn
    assert found.tensors["patch_blocks.0.attn.proj_x.bias"].dtype == torch.float32


def test_names_that_are_no_weights():
    keys = {"core.a.weight", "core.a.weight_scale", "core.a.comfy_quant", "b.weight", "b.scale_weight", "b.scale_input"}
    loose = {"c.weight_scale", "weight_scale", "core.d.comfy_quant", "scaled_fp8x", "b.bias"}
    flags = {"scaled_fp8", "core.scaled_fp8"}
    assert companions(keys | loose | flags) == keys - {"core.a.weight", "b.weight"} | flags


def test_sizes_without_padding_where_the_header_shows_them():
    shapes = {
        "core.s_embedder.proj.bias": (24,),
        "core.patch_blocks.0.mlp_x.w1.weight": (64, 32),
        "core.patch_blocks.0.attn.proj_x.weight": (32, 32),
        "core.patch_blocks.0.attn.proj_x.bias": (24,),
        "core.patch_blocks.0.attn.qkv_x.weight": (96, 32),
    }
    quantized = {key: "mxfp8" for key in shapes if key.endswith(".weight")}
    unpadded = {"core.patch_blocks.0.attn.proj_x.weight": (24, 32)}
    assert real_shapes(shapes, quantized) == shapes | unpadded
    wide = shapes | {"core.s_embedder.proj.bias": (25,), "core.patch_blocks.0.mlp_x.w1.weight": (96, 32)}
    assert real_shapes(wide, quantized)["core.patch_blocks.0.mlp_x.w1.weight"] == (66, 32)
    assert real_shapes(shapes, {}) == shapes


@pytest.mark.parametrize("group", [4, 16, 64])
def test_a_rotation_undoes_itself(group):
    turn = torch.ones(1, 1)
    for _ in range(round(math.log(group, 4))):
        turn = torch.kron(turn, torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2)
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    parts, form, rotated = quantize_int8((weight.view(-1, group) @ turn).view(8, 128))
    about = bytes_of({"format": form, "convrot": True, "convrot_groupsize": group})
    got = dequantize("a.weight", {f"a.{key}": value for key, value in parts.items()} | {"a.comfy_quant": about}, {})
    torch.testing.assert_close(got, weight, atol=0.05, rtol=0)
    torch.testing.assert_close((got.view(-1, group) @ turn).view(8, 128), rotated, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("flag", ["scaled_fp8", "core.scaled_fp8"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_old_way_to_scale(tiny_t2i, tmp_path, dtype, flag, shape):
    state = {f"core.{key}": value for key, value in tiny_t2i().network.state_dict().items()}
    layer = f"core.{LAYER}"
    stored = state | {
        f"{layer}.weight": state[f"{layer}.weight"].to(dtype),
        f"{layer}.scale_weight": torch.full(shape, 1.5),
        f"{layer}.scale_input": torch.ones(()),
        flag: torch.zeros(0, dtype=dtype),
    }
    path = tmp_path / "old.safetensors"
    save_file(stored, path)
    wanted = state | {f"{layer}.weight": stored[f"{layer}.weight"].float() * 1.5}
    assert same(pc.load_checkpoint(path), {key.removeprefix("core."): value for key, value in wanted.items()})
    del stored[f"{layer}.scale_weight"]
    save_file(stored, path)
    with pytest.raises(ValueError, match=f"{layer}.weight is fp8 and has no"):
        pc.load_checkpoint(path)


def test_a_weight_by_itself():
    parts, _, plain = quantize_mxfp8(torch.randn(40, 300, generator=torch.Generator().manual_seed(0)))
    tensors = {f"a.{key}": value for key, value in parts.items()}
    assert torch.equal(dequantize("a.weight", tensors, {}, (40, 300)), plain)
    assert dequantize("a.weight", tensors, {}).shape == (64, 320)
    for shape in ((40, 200), (40,), (65, 320), (40, 300, 1)):
        with pytest.raises(ValueError, match=r"a.weight is \[64, 320\], expected"):
            dequantize("a.weight", tensors, {}, shape)
    with pytest.raises(ValueError, match="b.weight is float32, which is not quantized"):
        dequantize("b.weight", {"b.weight": plain}, {})


ROWS = {"[out]": torch.flatten, "[out, 1]": lambda scale: scale.reshape(-1, 1)}


def scale_rows(state, stored_dtype, largest, dtype, shape=torch.flatten, part="weight_scale", chosen=CHOICES["blocks"]):
    """A state dict with one scale for each output, as home-made files have it, and the plain numbers."""
    stored, plain = dict(state), dict(state)
    for key, value in state.items():
        if not key.endswith(".weight") or value.ndim != 2 or not chosen(key):
            continue
        scale = (value.abs().amax(dim=1) / largest).to(dtype)
        numbers = value / scale.float()[:, None]
        stored[key] = (numbers.round() if stored_dtype == torch.int8 else numbers).to(stored_dtype)
        stored[key.removesuffix("weight") + part] = shape(scale)
        plain[key] = stored[key].float() * scale.float()[:, None]
    return {key: value.contiguous() for key, value in stored.items()}, plain


@pytest.mark.parametrize("part", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("kind, stored_dtype, largest", [
    ("int8", torch.int8, 127), ("fp8", torch.float8_e4m3fn, 448), ("fp8", torch.float8_e5m2, 57344),
])  # fmt: skip
def test_scales_of_rows(tiny, tmp_path, part, dtype, shape, kind, stored_dtype, largest):
    """Square matrices are among them: a flat scale is of their outputs."""
    stored, plain = scale_rows(tiny().network.state_dict(), stored_dtype, largest, dtype, ROWS[shape], part)
    path = tmp_path / "rows.safetensors"
    save_file(stored, path)
    assert same(pc.load_checkpoint(path), plain) and pc.inspect_checkpoint(path).quantization == kind
    found = read_weights(path)
    assert found.storage == kind and not found.scaled  # ComfyUI's own layers take one number only


@pytest.mark.parametrize("stored_dtype, largest, form", [
    (torch.int8, 127, "int8_tensorwise"), (torch.float8_e4m3fn, 448, "float8_e4m3fn"),
])  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "core.", "model.diffusion_model."])
@pytest.mark.parametrize("container", [".safetensors", ".ckpt"])
def test_scales_of_rows_in_any_file(tiny_t2i, tmp_path, stored_dtype, largest, form, prefix, container):
    """Text-to-image with ComfyUI's halves, declared by the file."""
    state = split_tensors(tiny_t2i().network.state_dict())
    stored, plain = scale_rows(state, stored_dtype, largest, torch.float32)
    save_file({key: value.contiguous() for key, value in plain.items()}, tmp_path / "plain.safetensors")
    for key in [key for key in stored if key.endswith(".weight_scale")]:
        stored[key.removesuffix("weight_scale") + "comfy_quant"] = bytes_of({"format": form})
    path = write(tmp_path / f"rows{container}", prefixed(prefix, stored))
    expected = pc.load_checkpoint(tmp_path / "plain.safetensors").network.state_dict()
    assert same(pc.load_checkpoint(path), expected)
    assert pc.inspect_checkpoint(path).refused is None


def test_a_scale_of_rows_beside_each_other(tiny, tmp_path):
    """[1, out] is clear where a matrix is not square."""
    name = "patch_blocks.0.attn.qkv.weight"
    row, chosen = (lambda scale: scale[None]), (lambda key: key == name)
    stored, plain = scale_rows(tiny().network.state_dict(), torch.int8, 127, torch.float32, row, chosen=chosen)
    save_file(stored, tmp_path / "row.safetensors")
    assert same(pc.load_checkpoint(tmp_path / "row.safetensors"), plain)
    square = "patch_blocks.0.attn.proj.weight"
    chosen = lambda key: key == square  # noqa: E731
    stored, _ = scale_rows(tiny().network.state_dict(), torch.int8, 127, torch.float32, row, chosen=chosen)
    save_file(stored, tmp_path / "square.safetensors")
    with pytest.raises(ValueError, match=r"is float32 \[1, 24\], which is no scale of int8 \[24, 24\]"):
        pc.load_checkpoint(tmp_path / "square.safetensors")
