"""The host's own Gemma-2 text encoder, small: its configuration reduced, weights random, a vocabulary made here."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import pytest
import torch

WIDTH = 20
SMALL = {
    "vocab_size": 320,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
WORDS = (
    "a photograph of a cat in the garden, low quality, worst quality, over-saturated, blurry, deformed, watermark",
    "the quick brown fox jumps over the lazy dog; Given a user prompt, generate an Enhanced prompt: shapes, colors",
)


def vocabulary():
    """A SentencePiece model with Gemma's own special numbers, as a tensor of bytes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20), model_writer=model, model_type="bpe", vocab_size=120,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


@contextlib.contextmanager
def reduced():
    """Inside, the host's configuration of Gemma-2 has the small sizes."""
    from comfy.text_encoders.llama import Gemma2_2B_Config as Config

    defaults = Config.__init__.__defaults__
    names = [field.name for field in dataclasses.fields(Config)]
    Config.__init__.__defaults__ = tuple(SMALL.get(name, value) for name, value in zip(names, defaults, strict=True))
    try:
        yield
    finally:
        Config.__init__.__defaults__ = defaults


def load(kind="PIXELDIT"):
    """A CLIP as Load CLIP gives it for a file of that size and this type."""
    import comfy.ops
    import comfy.sd
    from comfy.text_encoders.llama import Gemma2_2B

    if not hasattr(comfy.sd.CLIPType, kind):
        pytest.skip(f"this ComfyUI has no text encoder of type {kind.lower()} (0.23 and newer have)")
    with reduced():
        shapes = Gemma2_2B({}, torch.float32, "cpu", comfy.ops.manual_cast).state_dict()
        generator = torch.Generator().manual_seed(0)
        tensors = {key: 0.3 * torch.randn(value.shape, generator=generator) for key, value in shapes.items()}
        tensors["spiece_model"] = vocabulary()
        return comfy.sd.load_text_encoder_state_dicts([tensors], clip_type=getattr(comfy.sd.CLIPType, kind))
