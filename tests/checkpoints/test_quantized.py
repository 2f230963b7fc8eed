"""Quantized files: what is found in a header, exact numbers, pictures as from plain weights, and broken ones."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def file_of(golden, style):
    case = golden(f"comfy-t2i-{style}", "peers")
    return case, case.folder / "checkpoint.safetensors"


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
def test_a_quantized_file_paints_as_its_plain_numbers(golden, style, kind):
    case, path = file_of(golden, style)
    model = pc.load_checkpoint(path)
    given = case.inputs
    velocity = model.network(given["x"], given["timesteps"], given["context"])
    tolerance = case.case["suggested_atol_velocity"]
    torch.testing.assert_close(velocity, case.outputs["velocity"], atol=tolerance, rtol=0)
    info = pc.inspect_checkpoint(path)
    assert (info.quantization, info.refused, info.dtype, info.params) == (kind, None, torch.float32, model.params)
    assert info.count == sum(parameter.numel() for parameter in model.network.parameters())


def quantize_fp8(weight):
    scale = weight.abs().max() / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scale}, "float8_e4m3fn", stored.float() * scale


def quantize_int8(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    stored = (weight / scale).round().to(torch.int8)
    return {"weight": stored, "weight_scale": scale}, "int8_tensorwise", stored.float() * scale


def quantize_mxfp8(weight):
    """As the description says it, index by index: padded to 32, exponents in tiles of 128 rows and 4 columns."""
    rows, columns = (-(-size // 32) * 32 for size in weight.shape)
    whole = torch.zeros(rows, columns)
    whole[: len(weight), : weight.shape[1]] = weight
    exponents = torch.arange(rows * columns // 32).reshape(rows, -1) % 7 + 120  # any, but each group its own
    factors = 2.0 ** (exponents - 127).float().repeat_interleave(32, dim=1)
    stored = (whole / factors).clamp(-448, 448).to(torch.float8_e4m3fn)
    high, wide = -(-rows // 128), -(-columns // 128)
    blocked = torch.full((high * wide * 512,), 255, dtype=torch.uint8)  # what pads them is never looked at
    for r in range(rows):
        for c in range(columns // 32):
            tile, row = r // 128 * wide + c // 4, r % 128
            blocked[tile * 512 + (row % 32 * 4 + row // 32) * 4 + c % 4] = exponents[r, c]
    scale = blocked.reshape(high * 128, wide * 4)
    plain = (stored.float() * factors)[: len(weight), : weight.shape[1]]
    return {"weight": stored, "weight_scale": scale}, "mxfp8", plain


QUANTISE = {"fp8": quantize_fp8, "int8": quantize_int8, "mxfp8": quantize_mxfp8}


def bytes_of(about):
    text = about if isinstance(about, str) else json.dumps(about)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def quantize_state(state, kind, chosen):
    """What a quantized file holds, and the plain numbers of it."""
    stored, plain = {}, {}
    for key, value in state.items():
        plain[key] = stored[key] = value.contiguous()
        if key.endswith(".weight") and value.ndim == 2 and chosen(key):
            parts, form, plain[key] = QUANTISE[kind](value)
            layer = key.removesuffix(".weight")
            stored |= {f"{layer}.{part}": part_value for part, part_value in parts.items()}
            stored[f"{layer}.comfy_quant"] = bytes_of({"format": form})
    return stored, plain


def same(model, state):
    own = model.network.state_dict()
    return set(own) == set(state) and all(torch.equal(value, state[key]) for key, value in own.items())


CHOICES = {
    "blocks": lambda key: "blocks." in key,
    "modulation of pixels": lambda key: "pixel_blocks" in key and "adaLN" in key,
    "one half": lambda key: key.endswith("0.adaLN_modulation_msa.weight"),
    "the other half": lambda key: key.endswith("1.adaLN_modulation_mlp.weight"),
}


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", QUANTISE)
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


@pytest.mark.parametrize("kind", QUANTISE)
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


def test_sizes_without_padding_where_the_header_tells():
    shapes = {
        "core.s_embedder.proj.bias": (24,),
        "core.patch_blocks.0.mlp_x.w1.weight": (64, 32),
        "core.patch_blocks.0.attn.proj_x.weight": (32, 32),
        "core.patch_blocks.0.attn.proj_x.bias": (24,),
        "core.patch_blocks.0.attn.qkv_x.weight": (96, 32),
    }
    quantized = {key: "mxfp8" for key in shapes if key.endswith(".weight")}
    declared = {"core.patch_blocks.0.attn.proj_x.weight": (24, 32)}
    assert real_shapes(shapes, quantized) == shapes | declared
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


LAYER = "patch_blocks.0.attn.qkv_x"
INT8 = {"format": "int8_tensorwise"}


def rotated(group):
    return lambda parts: parts | {"comfy_quant": bytes_of(INT8 | {"convrot": True, "convrot_groupsize": group})}


def declared(about):
    return lambda parts: parts | {"comfy_quant": bytes_of(about)}


def without(part):
    return lambda parts: {key: value for key, value in parts.items() if key != part}


def scaled(scale):
    return lambda parts: parts | {"weight_scale": scale}


# kind, change, what loading tells; whether the header tells it, too
BROKEN = [
    ("int8", without("weight_scale"), f"{LAYER}.weight is int8 and has no {LAYER}.weight_scale", True),
    ("fp8", without("weight_scale"), f"{LAYER}.weight is fp8 and has no {LAYER}.weight_scale", True),
    ("mxfp8", without("weight_scale"), f"{LAYER}.weight is fp8 and has no {LAYER}.weight_scale", True),
    ("int8", scaled(torch.ones(71, 1)), f"{LAYER}.weight_scale is float32 [71, 1]", True),
    ("int8", scaled(torch.ones(72, 24)), "no scale of int8 [72, 24]", True),
    ("int8", scaled(torch.ones((), dtype=torch.int32)), "is int32 []", True),
    ("fp8", scaled(torch.ones(72, 1)), "no scale of fp8 [72, 24]", True),
    ("fp8", scaled(torch.ones(0)), "no scale of fp8 [72, 24]", True),
    ("mxfp8", scaled(torch.zeros(96, 1, dtype=torch.uint8)), "no scale of mxfp8 [96, 32]", True),
    ("mxfp8", scaled(torch.zeros(512, dtype=torch.uint8)), "no scale of mxfp8 [96, 32]", True),
    ("mxfp8", scaled(torch.ones(())), "qkv_x.weight is [96, 32], expected [72, 24]", True),
    ("fp8", lambda parts: parts | {"weight_scale_2": torch.ones(())}, "second scale", True),
    ("int8", declared("{"), f"{LAYER}.comfy_quant is not readable as JSON", False),
    ("int8", declared("\x00"), f"{LAYER}.comfy_quant is not readable as JSON", False),
    ("int8", declared("[" * 60000), f"{LAYER}.comfy_quant is not readable as JSON", False),
    ("int8", declared("[]"), "expected a dictionary", False),
    ("int8", declared("{}" + " " * 70000), f"{LAYER}.comfy_quant is uint8 [70002]", False),
    ("int8", declared({}), "has the format of type NoneType", False),
    ("int8", declared({"format": "x" * 60000}), f"has the format '{'x' * 39}, which", False),
    ("int8", rotated("4" * 60000), "in groups of '444", False),
    ("int8", declared({"format": ["int8_tensorwise"]}), "is not supported; float8_e4m3fn, ", False),
    ("int8", declared({"format": "int4"}), "has the format 'int4'", False),
    ("int8", declared({"format": "asym_w4a8_int8"}), "choose fp8_e4m3fn in the loader", False),
    ("int8", declared({"format": "mxfp8"}), f"{LAYER}.weight is int8, but declared as mxfp8", False),
    ("int8", rotated(16), "in groups of 16", False),  # of 24 inputs
    ("int8", rotated(8), "in groups of 8", False),
    ("int8", rotated(0), "in groups of 0", False),
    ("int8", rotated(-4), "in groups of -4", False),
    ("int8", rotated(4.0), "in groups of 4.0", False),
    ("int8", rotated("4"), "in groups of '4'", False),
    ("int8", rotated(4**40), f"in groups of {4**40}", False),
    ("int8", declared(INT8 | {"convrot": True}), "in groups of 256", False),  # what it means without a number
    ("int8", declared(INT8 | {"convrot": "false"}), "has convrot 'false', expected true or false", False),
    ("fp8", declared({"format": "float8_e4m3fn", "convrot": True, "convrot_groupsize": 4}), "is fp8 [72, 24]", False),
]  # fmt: skip


@pytest.mark.parametrize("kind, change, text, header_tells", BROKEN)
def test_a_broken_layer_is_named(tiny_t2i, tmp_path, kind, change, text, header_tells):
    stored, _ = quantize_state(tiny_t2i().network.state_dict(), kind, lambda key: key == f"{LAYER}.weight")
    parts = {key.removeprefix(f"{LAYER}."): stored.pop(key) for key in list(stored) if key.startswith(f"{LAYER}.")}
    path = tmp_path / "broken.safetensors"
    save_file(stored | {f"{LAYER}.{part}": value.contiguous() for part, value in change(parts).items()}, path)
    with pytest.raises(ValueError) as error:
        pc.load_checkpoint(path)
    message = str(error.value)
    assert message.startswith("broken.safetensors: ") and text in message and len(message) < 500, message
    assert pc.inspect_checkpoint(path).refused == (message if header_tells else None)


def with_layers(path, state, layers):
    text = layers if isinstance(layers, str) else json.dumps({"layers": layers})
    save_file({key: value.contiguous() for key, value in state.items()}, path, {"_quantization_metadata": text})
    return path


@pytest.mark.parametrize("layers, text", [
    ({LAYER: {"format": "nvfp4"}}, "has the format 'nvfp4', which is not supported"),
    ({LAYER: {"format": "convrot_w4a4"}}, "has the format 'convrot_w4a4'"),
    ({LAYER: {"format": "float8_e4m3fn"}}, "is float32, but declared as float8_e4m3fn"),
    ({LAYER: None}, "has no dictionary of layers"),
    ([], "has no dictionary of layers"),
    ("[]", "_quantization_metadata is '[]'"),
    ("{", "_quantization_metadata is not readable as JSON"),
    ("[" * 100000, "_quantization_metadata is not readable as JSON"),
])  # fmt: skip
def test_a_header_that_tells_nonsense_is_named(tiny_t2i, tmp_path, layers, text):
    path = with_layers(tmp_path / "declared.safetensors", tiny_t2i().network.state_dict(), layers)
    with pytest.raises(ValueError, match=f"declared.safetensors: .*{re.escape(text)}") as error:
        pc.load_checkpoint(path)
    assert pc.inspect_checkpoint(path).refused == str(error.value) and "bf16 file" in str(error.value)


def test_what_a_header_tells_of_others_is_not_about_us(tiny_t2i, tmp_path):
    state, encoder = tiny_t2i().network.state_dict(), "text_encoders.gemma.layers.0"
    packed = {f"{encoder}.weight": torch.zeros(4, 2, dtype=torch.uint8), f"{encoder}.weight_scale_2": torch.ones(())}
    layers = {encoder: {"format": "nvfp4"}, "nowhere": {"format": "nvfp4"}}
    path = with_layers(tmp_path / "whole.safetensors", state | packed, layers)
    assert same(pc.load_checkpoint(path), state) and pc.inspect_checkpoint(path).quantization is None


def test_weights_packed_in_four_bits_are_refused_with_a_way_out(tiny_t2i, tmp_path):
    state = tiny_t2i().network.state_dict()
    key = f"{LAYER}.weight"
    path = tmp_path / "packed.safetensors"
    save_file(state | {key: torch.zeros(72, 12, dtype=torch.uint8), f"{key}_scale": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=f"{key} is uint8, as in nvfp4, .*choose fp8_e4m3fn in the loader"):
        pc.load_checkpoint(path)
    assert "nvfp4" in pc.inspect_checkpoint(path).refused


@pytest.mark.parametrize("key", [
    f"{LAYER}.weight_scale",  # of a weight that is not quantized
    "patch_blocks.0.attn.qkv_z.weight_scale",
    f"{LAYER}.comfy_quant",
])  # fmt: skip
def test_a_scale_that_belongs_to_nothing_quantized_is_left_over(tiny_t2i, tmp_path, key):
    path = tmp_path / "left.safetensors"
    save_file(tiny_t2i().network.state_dict() | {key: torch.ones(())}, path)
    with pytest.raises(ValueError, match=f"1 tensors do not belong to PixelDiT, text-to-image: {key}"):
        pc.load_checkpoint(path)


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


def test_a_golden_file_without_a_tensor_or_with_one_more(golden, tmp_path):
    stored = load_file(file_of(golden, "mxfp8")[1])
    path = tmp_path / "changed.safetensors"
    weight, proj = f"core.{LAYER}.weight", "core.patch_blocks.0.attn.proj_x.weight"
    for changed, text in (
        ({key: value for key, value in stored.items() if key != proj}, "missing: .*proj_x.weight"),
        (stored | {weight: stored[weight][:-1].clone()}, "qkv_x.weight"),
        (stored | {"core.patch_blocks.0.more": torch.ones(1)}, "1 tensors do not belong .*0.more"),
        (stored | {"core.patch_blocks.1.mlp_x.w1.weight": stored[weight][:160].clone()}, "1.mlp_x.w1.weight"),
    ):
        save_file(changed, path)
        with pytest.raises(ValueError, match=text):
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
