"""Quantized files with missing scales, unknown formats or unreadable metadata."""

import json
import re

import pytest
import torch
from checkpoints.files import fails, prefixed, same, write
from checkpoints.quantized_files import (
    LAYER,
    bytes_of,
    file_of,
    quantize_state,
)
from safetensors.torch import load_file, save_file

import pixeldit_core as pc

INT8 = {"format": "int8_tensorwise"}


def rotated(group):
    return lambda parts: parts | {"comfy_quant": bytes_of(INT8 | {"convrot": True, "convrot_groupsize": group})}


def described(about):
    return lambda parts: parts | {"comfy_quant": bytes_of(about)}


def without(part):
    return lambda parts: {key: value for key, value in parts.items() if key != part}


def scaled(scale):
    return lambda parts: parts | {"weight_scale": scale}


# kind, change, the message of loading; whether the header alone shows it
BROKEN = [
    ("int8", without("weight_scale"), f"{LAYER}.weight is int8 and has no {LAYER}.weight_scale", True),
    ("fp8", without("weight_scale"), f"{LAYER}.weight is fp8 and has no {LAYER}.weight_scale", True),
    ("mxfp8", without("weight_scale"), f"{LAYER}.weight is mxfp8 and has no {LAYER}.weight_scale", True),
    ("int8", scaled(torch.ones(71, 1)), f"{LAYER}.weight_scale is float32 [71, 1]", True),
    ("int8", scaled(torch.ones(72, 24)), "no scale of int8 [72, 24]", True),
    ("int8", scaled(torch.ones((), dtype=torch.int32)), "is int32 []", True),
    ("fp8", scaled(torch.ones(72, 2)), "no scale of fp8 [72, 24]", True),
    ("fp8", scaled(torch.ones(24)), "no scale of fp8 [72, 24]", True),  # of inputs
    ("int8", scaled(torch.ones(1, 24)), "no scale of int8 [72, 24]", True),
    ("fp8", scaled(torch.ones(72, 2, 1)), "no scale of fp8 [72, 24]", True),  # as musubi-tuner scales blocks
    ("fp8", scaled(torch.ones(0)), "no scale of fp8 [72, 24]", True),
    ("mxfp8", scaled(torch.zeros(96, 1, dtype=torch.uint8)), "no scale of mxfp8 [96, 32]", True),
    ("mxfp8", scaled(torch.zeros(512, dtype=torch.uint8)), "no scale of mxfp8 [96, 32]", True),
    ("mxfp8", scaled(torch.ones(())), "no scale of mxfp8 [96, 32]", True),
    ("fp8", lambda parts: parts | {"weight_scale_2": torch.ones(())}, "second scale", True),
    ("int8", described("{"), f"{LAYER}.comfy_quant is not readable as JSON", True),
    ("int8", described("\x00"), f"{LAYER}.comfy_quant is not readable as JSON", True),
    ("int8", described("[" * 60000), f"{LAYER}.comfy_quant is not readable as JSON", True),
    ("int8", described("[]"), "expected a dictionary", True),
    ("int8", described("{}" + " " * 70000), f"{LAYER}.comfy_quant is uint8 [70002]", True),
    ("int8", described({}), "has the format of type NoneType", True),
    ("int8", described({"format": "x" * 60000}), f"has the format '{'x' * 39}, which", True),
    ("int8", rotated("4" * 60000), "in groups of '444", False),
    ("int8", described({"format": ["int8_tensorwise"]}), "is not supported; float8_e4m3fn, ", True),
    ("int8", described({"format": "int4"}), "has the format 'int4'", True),
    ("int8", described({"format": "asym_w4a8_int8"}), "choose fp8_e4m3fn in the loader", True),
    ("int8", described({"format": "mxfp8"}), f"{LAYER}.weight is int8, but declared as mxfp8", True),
    ("int8", rotated(16), "in groups of 16", False),  # of 24 inputs
    ("int8", rotated(8), "in groups of 8", False),
    ("int8", rotated(0), "in groups of 0", False),
    ("int8", rotated(-4), "in groups of -4", False),
    ("int8", rotated(4.0), "in groups of 4.0", False),
    ("int8", rotated("4"), "in groups of '4'", False),
    ("int8", rotated(4**40), f"in groups of {4**40}", False),
    ("int8", described(INT8 | {"convrot": True}), "in groups of 256", False),  # what it means without a number
    ("int8", described(INT8 | {"convrot": "false"}), "has convrot 'false', expected true or false", False),
    ("fp8", described({"format": "float8_e4m3fn", "convrot": True, "convrot_groupsize": 4}), "is fp8 [72, 24]", False),
]  # fmt: skip


@pytest.mark.parametrize("kind, change, text, in_header", BROKEN)
def test_a_broken_layer_is_named(tiny_t2i, tmp_path, kind, change, text, in_header):
    stored, _ = quantize_state(tiny_t2i().network.state_dict(), kind, lambda key: key == f"{LAYER}.weight")
    parts = {key.removeprefix(f"{LAYER}."): stored.pop(key) for key in list(stored) if key.startswith(f"{LAYER}.")}
    path = tmp_path / "broken.safetensors"
    save_file(stored | {f"{LAYER}.{part}": value.contiguous() for part, value in change(parts).items()}, path)
    with pytest.raises(ValueError) as error:
        pc.load_checkpoint(path)
    message = str(error.value)
    assert message.startswith("broken.safetensors: ") and text in message and len(message) < 500, message
    assert pc.inspect_checkpoint(path).refused == (message if in_header else None)


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
def test_a_header_that_declares_nonsense_is_named(tiny_t2i, tmp_path, layers, text):
    path = with_layers(tmp_path / "declared.safetensors", tiny_t2i().network.state_dict(), layers)
    with pytest.raises(ValueError, match=f"declared.safetensors: .*{re.escape(text)}") as error:
        pc.load_checkpoint(path)
    assert pc.inspect_checkpoint(path).refused == str(error.value) and "bf16 file" in str(error.value)


def test_what_a_header_declares_of_other_models_is_ignored(tiny_t2i, tmp_path):
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
    "patch_blocks.0.attn.qkv_z.comfy_quant",
])  # fmt: skip
def test_a_scale_that_belongs_to_nothing_quantized_is_left_over(tiny_t2i, tmp_path, key):
    path = tmp_path / "left.safetensors"
    save_file(tiny_t2i().network.state_dict() | {key: torch.ones(())}, path)
    with pytest.raises(ValueError, match=f"1 tensors do not belong to PixelDiT, text-to-image: {key}"):
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


@pytest.mark.parametrize("form", ["int8_blockwise", "nvfp4", "convrot_w4a4", "asym_w4a8_int8", "w6a8", "svdquant"])
@pytest.mark.parametrize("dtype, columns", [(torch.int8, 24), (torch.uint8, 12), (torch.int32, 3)])
@pytest.mark.parametrize("where", ["beside it", "header"])
@pytest.mark.parametrize("prefix", ["", "core."])
def test_the_format_that_a_file_declares_decides_first(tiny_t2i, tmp_path, form, dtype, columns, where, prefix):
    state = {prefix + key: value for key, value in tiny_t2i().network.state_dict().items()}
    layer, path = prefix + LAYER, tmp_path / "declared.safetensors"
    state |= {f"{layer}.weight": torch.zeros(72, columns, dtype=dtype), f"{layer}.weight_scale": torch.ones(9, 3)}
    if where == "header":
        with_layers(path, state, {layer: {"format": form}})
    else:
        save_file(state | {f"{layer}.comfy_quant": bytes_of({"format": form})}, path)
    with pytest.raises(ValueError, match=f"{layer}.weight has the format '{form}', which is not supported") as error:
        pc.load_checkpoint(path)
    assert pc.inspect_checkpoint(path).refused == str(error.value)
    assert "damaged" not in str(error.value) and "get it again" not in str(error.value)


def ints(*shape, dtype=torch.int8):
    return torch.zeros(shape, dtype=dtype)


def packed(*shape):
    return ints(*shape, dtype=torch.uint8)


FP8, ROWS = torch.float8_e4m3fn, torch.ones(72, 1)
PACKED = {
    "bitsandbytes (4 bits, NF4)": {"weight": packed(864, 1), "weight.absmax": torch.ones(27),
                                   "weight.quant_state.bitsandbytes__nf4": packed(80)},
    "bitsandbytes (4 bits, FP4)": {"weight": packed(864, 1), "weight.quant_state.bitsandbytes__fp4": packed(80)},
    "bitsandbytes": {"weight": packed(864, 1), "weight.absmax": packed(27), "weight.quant_map": torch.ones(16)},
    "bitsandbytes (8 bits)": {"weight": ints(72, 24), "SCB": torch.ones(72), "weight_format": packed()},
    "GPTQ or AWQ": {"qweight": ints(3, 72, dtype=torch.int32), "qzeros": ints(1, 9, dtype=torch.int32),
                    "scales": torch.ones(1, 72)},
    "EETQ": {"qweight": ints(24, 72), "weight_scales": torch.ones(72)},
    "SVDQuant (Nunchaku)": {"qweight": ints(72, 12), "wscales": torch.ones(1, 72)},
    "SVDQuant (Nunchaku), its weight": {"weight": packed(72, 12), "smooth_factor": torch.ones(24),
                                        "lora_down": torch.ones(24, 4), "lora_up": torch.ones(72, 4)},
    "SVDQuant (Nunchaku), int8": {"weight": ints(72, 12), "wscales": torch.ones(1, 72)},
    "SVDQuant (Nunchaku), int32": {"weight": ints(72, 3, dtype=torch.int32), "wscales": torch.ones(1, 72)},
    "Quanto": {"weight._data": ints(72, 24), "weight._scale": ROWS},
    "Quanto, 4 bits": {"weight._data._data": packed(36, 24), "weight._scale": ROWS, "weight._shift": ROWS},
    "compressed-tensors": {"weight_packed": ints(72, 3, dtype=torch.int32), "weight_scale": ROWS},
    "compressed-tensors (with zero points)": {"weight": ints(72, 24), "weight_scale": ROWS,
                                              "weight_zero_point": ints(72, 1)},
    "torchao": {"_weight_qdata": ints(72, 24), "_weight_scale": ROWS},
    "torchao, older": {"weight:qdata": ints(72, 24), "weight:scale": ROWS},
    "HQQ": {"W_q": packed(36, 24), "scale": ROWS, "zero": ROWS},
    "SDNQ": {"weight": packed(864), "scale": ROWS, "zero_point": ROWS},
}  # fmt: skip


@pytest.mark.parametrize("layer", [LAYER, "patch_blocks.0.mlp_x.w1"])
@pytest.mark.parametrize("name", PACKED)
def test_other_programs_packed_weights_are_refused_by_name(tiny_t2i, tmp_path, name, layer):
    state = tiny_t2i().network.state_dict()
    del state[f"{layer}.weight"]
    path = tmp_path / "packed.safetensors"
    save_file(state | {f"{layer}.{part}": value.clone() for part, value in PACKED[name].items()}, path)
    title = re.escape(name.partition(",")[0] if "bits," not in name else name)
    with pytest.raises(ValueError, match=f"by {title}. Such weights are not supported.*bf16 file") as error:
        pc.load_checkpoint(path)
    assert pc.inspect_checkpoint(path).refused == str(error.value) and "get it again" not in str(error.value)


def test_a_scale_of_blocks_is_not_called_damage(tiny, tmp_path):
    state = tiny().network.state_dict()
    name, path = "patch_blocks.0.attn.qkv", tmp_path / "blocks.safetensors"
    state |= {f"{name}.weight": torch.zeros(72, 24, dtype=torch.int8), f"{name}.weight_scale": torch.ones(9, 3)}
    save_file(state, path)
    with pytest.raises(ValueError, match=r"no scale of int8 \[72, 24\] that is supported: one number") as error:
        pc.load_checkpoint(path)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("prefix, suffix", [("", ".safetensors"), ("net.", ".pt"), ("model.diffusion_model.", ".ckpt")])
@pytest.mark.parametrize("name", ["bitsandbytes (4 bits, NF4)", "SVDQuant (Nunchaku), int8", "torchao"])
def test_packed_weights_of_any_container(tiny, tmp_path, name, prefix, suffix):
    state, layer = tiny().network.state_dict(), "patch_blocks.0.attn.qkv"
    del state[f"{layer}.weight"]
    state |= {f"{layer}.{part}": value for part, value in PACKED[name].items()}
    fails(write(tmp_path / f"packed{suffix}", prefixed(prefix, state)), "Such weights are not supported. Get the bf16")


@pytest.mark.parametrize("name", PACKED)
def test_packed_weights_of_other_models_are_ignored(tiny_t2i, tmp_path, name):
    state = tiny_t2i().network.state_dict()
    encoder = {f"text_encoders.gemma.layers.0.{part}": value.clone() for part, value in PACKED[name].items()}
    path = write(tmp_path / "whole.safetensors", prefixed("model.diffusion_model.", state) | encoder)
    assert same(pc.load_checkpoint(path), state) and pc.inspect_checkpoint(path).refused is None


UNKNOWN = {
    "int8 and has no": {"weight": ints(72, 24), "scale": ROWS},
    r"weight is int8 \[72, 12\], 4 bits for each of 24 inputs": {"weight": ints(72, 12), "weight_scale": ROWS},
    r"weight is int8 \[72, 18\], 6 bits for each of 24 inputs": {"weight": ints(72, 18), "weight_scale": ROWS},
    "weight_int8 is int8, as another quantizer names": {"weight_int8": ints(72, 24), "weight_scale": ROWS},
    "is fp8 and has a second scale": {"weight": torch.zeros(72, 24).to(FP8), "weight_scale": torch.ones(()),
                                      "weight_scale_2": torch.ones(())},
    r"is float8 with a scale for each block of a matrix \(as of DeepSeek\)":
        {"weight": torch.zeros(72, 24).to(FP8), "weight_scale_inv": torch.ones(1, 1)},
    "weight is int16, as in packed files": {"weight": ints(72, 24, dtype=torch.int16)},
    "bias is int32, as in packed files": {"weight": torch.zeros(72, 24), "bias": ints(72, dtype=torch.int32)},
}  # fmt: skip


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_ways_of_quantizing_are_no_damage(tiny_t2i, tmp_path, text):
    state, layer = tiny_t2i().network.state_dict(), "patch_blocks.1.attn.qkv_x"
    del state[f"{layer}.weight"]
    path = write(tmp_path / "unknown.safetensors", state | {f"{layer}.{k}": v for k, v in UNKNOWN[text].items()})
    with pytest.raises(ValueError, match=text) as error:
        pc.load_checkpoint(path)
    message = str(error.value)
    assert pc.inspect_checkpoint(path).refused == message
    assert not re.search("damaged|incomplete|get it again", message) and "bf16 file" in message


@pytest.mark.parametrize("part", ["qweight", "weight"])
@pytest.mark.parametrize("where", ["beside it", "header"])
def test_the_declared_format_comes_before_all_other_signs(tiny_t2i, tmp_path, part, where):
    """Of whatever layer it is, and whatever the names and scales of others look like."""
    state = tiny_t2i().network.state_dict()
    odd, layer, path = LAYER, "patch_blocks.1.attn.qkv_x", tmp_path / "declared.safetensors"
    state |= {f"{odd}.weight": ints(72, 24), f"{odd}.weight_scale": torch.ones(9, 3)}
    del state[f"{layer}.weight"]
    state |= {f"{layer}.{part}": ints(72, 12), f"{layer}.wscales": torch.ones(1, 72)}
    if where == "header":
        with_layers(path, state, {layer: {"format": "w8a16"}})
    else:
        save_file(state | {f"{layer}.comfy_quant": bytes_of({"format": "w8a16"})}, path)
    fails(path, "has the format 'w8a16', which is not supported")
