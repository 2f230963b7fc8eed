"""Names of dtypes, and what is said of those that a CPU emulates."""

import pytest
import torch

from pixeldit_core.dtypes import emulation_note

CPU = torch.device("cpu")
PLAIN = {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}


def has(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: PLAIN | capabilities, raising=False)


@pytest.mark.parametrize("dtype, instruction", [(torch.bfloat16, "amx_bf16"), (torch.float16, "avx512_fp16")])
def test_a_dtype_without_instructions_is_emulated(dtype, instruction, monkeypatch):
    has(monkeypatch)
    assert "float32 is several times faster" in emulation_note(dtype, CPU)
    has(monkeypatch, **{instruction: True})
    assert emulation_note(dtype, CPU) == ""


def test_nothing_is_said_of_float32_other_devices_and_what_is_not_known(monkeypatch):
    has(monkeypatch)
    assert emulation_note(torch.float32, CPU) == emulation_note(torch.bfloat16, torch.device("cuda")) == ""
    has(monkeypatch, architecture="aarch64")
    assert emulation_note(torch.bfloat16, CPU) == ""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert emulation_note(torch.bfloat16, CPU) == ""
