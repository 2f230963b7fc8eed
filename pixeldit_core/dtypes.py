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
