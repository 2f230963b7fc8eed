"""The host's own Qwen3 text encoder, small: the weights of a golden case, and a letter for each of its tokens."""

from __future__ import annotations

import json
from unittest import mock

import pytest
import torch
from kit import golden_folder
from safetensors.torch import load_file

CASE = ("70_text_encoder_tiny", "pixelhdm")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ."  # the golden vocabulary has 64 tokens


class Letters:
    """Stands for the tokenizer inside the host's: it adds nothing, as Qwen's does."""

    def __call__(self, text):
        return {"input_ids": [LETTERS.index(letter) for letter in text]}

    def spell(self, tokens):
        return "".join(LETTERS[token] for token in tokens)


def reduced(name="Qwen3_06B", **sizes):
    """Inside, the host's configuration of a Qwen3 has these sizes."""
    import comfy.text_encoders.llama as llama

    if not hasattr(llama, name):
        pytest.skip(f"this ComfyUI has no {name}")
    usual = getattr(llama, f"{name}Config")

    def small(**options):
        config = usual(**options)
        for name, value in sizes.items():
            setattr(config, name, value)  # some are of the class: not for its constructor
        return config

    return mock.patch.object(llama, f"{name}Config", small)


def load():
    """The golden text encoder as a CLIP, its tokenizer exchanged for `Letters`."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget

    case = json.loads((golden_folder(*CASE) / "case.json").read_text())
    saved = json.loads((golden_folder(*CASE) / "qwen3_tiny" / "config.json").read_text())
    tensors = load_file(golden_folder(*CASE) / "qwen3_tiny" / "model.safetensors")
    tensors = {f"model.{key}": value for key, value in tensors.items()}
    with reduced(**case["qwen3_config"], rope_theta=saved["rope_parameters"]["rope_theta"]):
        from comfy.text_encoders import anima

        target = ClipTarget(anima.AnimaTokenizer, anima.te(dtype_llama=torch.float32))
        clip = comfy.sd.CLIP(target, state_dict=[tensors])
    clip.tokenizer.qwen3_06b.tokenizer = Letters()
    clip.tokenizer.qwen3_06b.pad_token = case["pad_id"]
    return clip


def detected(kind="STABLE_DIFFUSION", name="Qwen3_06B"):
    """A CLIP as Load CLIP gives it for a file of a Qwen3 and this type: as wide as the real one, narrow otherwise."""
    import comfy.ops
    import comfy.sd
    import comfy.text_encoders.llama as llama

    narrow = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 8}
    with reduced(name, vocab_size=64, num_hidden_layers=3, **narrow):
        shapes = getattr(llama, name)({}, torch.float32, "cpu", comfy.ops.manual_cast).state_dict()
        tensors = {key: torch.ones(value.shape) for key, value in shapes.items()}
        return comfy.sd.load_text_encoder_state_dicts([tensors], clip_type=comfy.sd.CLIPType[kind])
