"""PixelHDM's prompts through ComfyUI's Qwen3: the plain text, no chat template, no special tokens, no weights."""

from __future__ import annotations

import contextlib
from typing import Any

import comfy.model_management
import comfy.text_encoders.llama
import torch
from comfyui_version import __version__ as COMFYUI_VERSION
from torch import Tensor, nn

_PROMPT_TOKENS = 511  # text_max_length of PixelHDM's presets

# ComfyUI loads Qwen3-1.7B as Ovis25_2B
_MODELS = tuple(
    getattr(comfy.text_encoders.llama, name)
    for name in ("Qwen3_06B", "Ovis25_2B", "Qwen3_4B", "Qwen3_8B")
    if hasattr(comfy.text_encoders.llama, name)
)
_on_device = getattr(comfy.model_management, "cuda_device_context", lambda device: contextlib.nullcontext())


def is_qwen(clip: Any) -> bool:
    """Whether a CLIP holds a plain Qwen3, for whatever model it was loaded."""
    return isinstance(_model(clip), _MODELS)


def encode(clip: Any, text: str, limit: int = _PROMPT_TOKENS) -> list:
    """CONDITIONING of a text: states after the last norm, their mask, and the state of the last token.

    The padding to `limit` of training is left out: masked tokens have no effect. No tokens = one masked token.
    """
    tokens = _tokens(clip, text)[:limit]
    clip.load_model()
    device = clip.patcher.load_device
    with _on_device(device):
        states = _states(_model(clip).model, tokens, device) if tokens else _null_state(clip, device)
    states = states.float().to(comfy.model_management.intermediate_device())  # [1, T, D]
    mask = torch.full(states.shape[:2], int(bool(tokens)), dtype=torch.int64, device=states.device)
    return [[states, clip.add_hooks_to_dict({"attention_mask": mask, "pooled_output": states[:, -1]})]]


def unread(clip: Any, text: str, limit: int = _PROMPT_TOKENS) -> str | None:
    """A note on the part of a text that the network ignores; None if it reads all of it."""
    count = len(_tokens(clip, text))
    return f"it has {count} tokens, the model reads the first {limit}: the rest is ignored" if count > limit else None


def advice() -> str:
    """How to load this text encoder."""
    load = "load Qwen3-0.6B (model.safetensors of Qwen/Qwen3-0.6B, in models/text_encoders) with Load CLIP, any type."
    if hasattr(comfy.text_encoders.llama, "Qwen3_06B"):
        return f"For PixelHDM, {load}"
    return (
        "PixelHDM's text encoder needs a ComfyUI with Qwen3-0.6B (February 2026 or newer); this is "
        f"{COMFYUI_VERSION}. Update ComfyUI, then {load}"
    )


def _model(clip: Any) -> nn.Module | None:
    return getattr(getattr(clip.cond_stage_model, _name(clip), None), "transformer", None)


def _name(clip: Any) -> str:
    return getattr(clip.cond_stage_model, "clip", "")  # such as "qwen3_06b": of model and tokenizer alike


def _tokenizer(clip: Any) -> Any:
    return getattr(clip.tokenizer, _name(clip))


def _tokens(clip: Any, text: str) -> list[int]:
    # the inner tokenizer: ComfyUI's around it would interpret "(word:1.2)" and "embedding:name", and pad
    return _tokenizer(clip).tokenizer(text)["input_ids"]


def _states(model: nn.Module, tokens: list[int], device: torch.device) -> Tensor:
    return model(torch.tensor([tokens], device=device), dtype=torch.float32)[0]


def _null_state(clip: Any, device: torch.device) -> Tensor:
    """What a fully masked text gives: attention adds nothing, so all positions carry the same state."""
    model, padding = _model(clip).model, _tokenizer(clip).pad_token
    x = model.embed_tokens(torch.tensor([[padding]], device=device), out_dtype=torch.float32)
    for layer in model.layers:
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.norm(x)
