"""Tiny text encoders with a vocabulary of a few words, as folders that transformers loads."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

WORDS = "a red blue green square circle on white Follow this instruction: Prompt: low quality".split()
SIZES = {
    "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "vocab_size": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
INSTRUCTION = "Follow this instruction: Prompt: "


def tokenizer(starts):
    """A token for each word; a space at the end is one of its own, until a word follows. `starts`: as Gemma's does."""
    vocabulary = {name: number for number, name in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "\u2581"])}
    vocabulary |= {f"\u2581{word}": len(vocabulary) + number for number, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    if starts:
        inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special, **({"bos_token": "<bos>"} if starts else {}))


def write_gemma(folder, width):
    """A Gemma-2 with a start token."""
    torch.manual_seed(0)
    config = Gemma2Config(hidden_size=width, query_pre_attn_scalar=4, initializer_range=0.3, **SIZES)
    Gemma2Model(config).save_pretrained(folder)
    tokenizer(starts=True).save_pretrained(folder)
    return folder


def write_qwen(folder, width):
    """A Qwen3, which adds no tokens."""
    torch.manual_seed(0)
    Qwen3Model(Qwen3Config(hidden_size=width, initializer_range=0.3, **SIZES)).save_pretrained(folder)
    tokenizer(starts=False).save_pretrained(folder)
    return folder
