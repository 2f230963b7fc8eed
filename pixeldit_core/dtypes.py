"""Names of dtypes: the short ones that users choose from, and torch's."""

from __future__ import annotations

import torch

# As ComfyUI's nodes and options call them.
DTYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def dtype_name(dtype: torch.dtype) -> str:
    """torch's own name: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


_INSTRUCTIONS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}


def emulation_note(dtype: torch.dtype, device: torch.device) -> str:
    """What to say of a dtype that the CPU has no products of, and emulates, slower than float32; "" = nothing.

    Of x86 alone, where torch says what the CPU has.
    """
    has = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    if has.get("architecture") != "x86_64" or any(map(has.get, _INSTRUCTIONS.get(dtype, ("architecture",)))):
        return ""
    return f"this CPU emulates {dtype_name(dtype)}; float32 is several times faster on it"
