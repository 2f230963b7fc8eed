"""State dicts quantized as ComfyUI does it, with the plain numbers they stand for."""

import json

import torch


def file_of(golden, style):
    case = golden(f"comfy-t2i-{style}", "peers")
    return case, case.folder / "checkpoint.safetensors"


def quantize_fp8(weight):
    scale = weight.abs().max() / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scale}, "float8_e4m3fn", stored.float() * scale


def quantize_int8(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    stored = (weight / scale).round().to(torch.int8)
    return {"weight": stored, "weight_scale": scale}, "int8_tensorwise", stored.float() * scale


def quantize_mxfp8(weight):
    """By the format's description, index by index: padded to 32, exponents in tiles of 128 rows and 4 columns."""
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


QUANTIZE = {"fp8": quantize_fp8, "int8": quantize_int8, "mxfp8": quantize_mxfp8}


def bytes_of(about):
    text = about if isinstance(about, str) else json.dumps(about)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def quantize_state(state, kind, chosen):
    """What a quantized file holds, and the plain numbers of it."""
    stored, plain = {}, {}
    for key, value in state.items():
        plain[key] = stored[key] = value.contiguous()
        if key.endswith(".weight") and value.ndim == 2 and chosen(key):
            parts, form, plain[key] = QUANTIZE[kind](value)
            layer = key.removesuffix(".weight")
            stored |= {f"{layer}.{part}": part_value for part, part_value in parts.items()}
            stored[f"{layer}.comfy_quant"] = bytes_of({"format": form})
    return stored, plain


CHOICES = {
    "blocks": lambda key: "blocks." in key,
    "modulation of pixels": lambda key: "pixel_blocks" in key and "adaLN" in key,
    "one half": lambda key: key.endswith("0.adaLN_modulation_msa.weight"),
    "the other half": lambda key: key.endswith("1.adaLN_modulation_mlp.weight"),
}

LAYER = "patch_blocks.0.attn.qkv_x"
