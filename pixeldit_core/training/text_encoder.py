"""Text encoders of the text families through transformers: Gemma-2 for PixelDiT, Qwen3 for PixelHDM."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..extras import require
from ..families import VARIANTS, Family
from ..families.record import Params

log = logging.getLogger(__name__)

ENCODERS = {"pixeldit_t2i": ("gemma2", "google/gemma-2-2b-it"), "pixelhdm": ("qwen3", "Qwen/Qwen3-0.6B")}


class TextState(NamedTuple):
    """What a network reads of one caption."""

    embeds: Tensor  #         [T, C]: of all positions if padding takes part, else of the caption's tokens, maybe none
    pooled: Tensor | None  # [C]


class TextEncoder:
    """Captions -> states, as the published networks of a family were trained with.

    Args:
        model: the decoder stack: (input_ids, attention_mask) -> `last_hidden_state`, after its final norm.
        tokenizer: text -> `input_ids`, with its own start token and no padding.
        max_tokens: of a caption; the rest is cut.
        instruction: text before every caption that is not empty, for families without a mask; "" = none.
    """

    def __init__(self, model: Any, tokenizer: Any, family: Family, max_tokens: int, instruction: str = "") -> None:
        self.model, self.tokenizer, self.family = model, tokenizer, family
        self.max_tokens, self.instruction = max_tokens, instruction
        self.pad = _pad_id(tokenizer)

    @property
    def width(self) -> int:
        """C of the states."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> list[TextState]:
        """States of some captions, on the encoder's device and in its dtype."""
        if "mask" in self.family.text_parts:
            return masked_states(self.model, [self._ids(caption)[: self.max_tokens] for caption in captions], self.pad)
        states: dict[int, TextState] = {}
        for after_instruction in (False, True):
            rows = [row for row, caption in enumerate(captions) if self._is_instructed(caption) == after_instruction]
            embeds = self._padded([captions[row] for row in rows], after_instruction) if rows else ()
            states |= {row: TextState(part, None) for row, part in zip(rows, embeds, strict=True)}
        return [states[row] for row in range(len(captions))]

    def _is_instructed(self, caption: str) -> bool:
        return bool(self.instruction and caption.strip())

    def _padded(self, captions: list[str], after_instruction: bool) -> Tensor:
        """[B, max_tokens, C] with the states of padding (spec: official, 6.4)."""
        if not after_instruction:
            return padded_states(self.model, [self._ids(caption) for caption in captions], self.max_tokens, self.pad)
        prefix = len(self._ids(self.instruction))
        positions = caption_positions(prefix, self.max_tokens)
        ids = [self._ids(self.instruction + caption) for caption in captions]
        return padded_states(self.model, ids, positions[-1] + 1, self.pad)[:, positions]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])


def caption_positions(prefix: int, max_tokens: int) -> list[int]:
    """Positions that are kept of a caption after an instruction of `prefix` tokens: the start token and the last.

    The first token after the instruction is at `prefix - 1`: the space that ends it merges with the first word.
    """
    length = prefix + max_tokens - 2
    return [0, *range(length - max_tokens + 1, length)]


def padded_states(model: Any, ids: list[list[int]], length: int, pad: int) -> Tensor:
    """States [B, length, C] of texts cut or padded to one length; tokens do not attend to padding.

    Raises:
        ValueError: a text without any token, for which there is nothing to attend to.
    """
    if not all(ids):
        raise ValueError("the tokenizer adds no start token to an empty text. Use that of Gemma-2, which does.")
    return _states(model, [row[:length] for row in ids], length, pad)


def masked_states(model: Any, ids: list[list[int]], pad: int) -> list[TextState]:
    """States of the tokens of each text, and of its last token (spec: pixelhdm, 7).

    The padding of training is left out: causal attention and the mask keep it from changing anything.
    """
    tokens = [row or [pad] for row in ids]
    states = _states(model, tokens, max(map(len, tokens)), pad)
    return [
        TextState(state[: len(row)], state[len(row) - 1]) if row else _no_text(null_state(model, pad))
        for row, state in zip(ids, states, strict=True)
    ]


def null_state(model: Any, pad: int) -> Tensor:
    """The state [C] of every position of a text that is only padding: attention adds nothing, whatever its backend."""
    x = model.embed_tokens(torch.tensor([[pad]], device=model.device))
    for layer in model.layers:
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.norm(x)[0, 0]


def _no_text(pooled: Tensor) -> TextState:
    return TextState(pooled.new_zeros(0, len(pooled)), pooled)


def _states(model: Any, ids: list[list[int]], length: int, pad: int) -> Tensor:
    tokens = torch.tensor([row + [pad] * (length - len(row)) for row in ids], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids], device=model.device)
    return model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state


def _pad_id(tokenizer: Any) -> int:
    """The tokenizer's padding, else its end of a text."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ValueError("the tokenizer of the text encoder has no padding token and no end token; use the published one.")


def published_params(family: Family) -> list[Params]:
    """Of the published networks of a family."""
    return [variant.params for variant in VARIANTS.values() if variant.family == family.name]


def load_text_encoder(
    name: str,
    family: Family,
    *,
    instruction: str = "",
    max_tokens: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> TextEncoder:
    """A text encoder from a folder or the hub.

    Args:
        max_tokens: of a caption; None = as many as the published networks read.

    Raises:
        ImportError: transformers is missing; the message says what to install.
        ValueError: it cannot be loaded, or is not the kind that the family was trained with.
    """
    if family.name not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise ValueError(f"{family.title} has no text encoder here; there are encoders for {known}.")
    kind, example = ENCODERS[family.name]
    model, tokenizer = _load(name, kind, example, family, dtype)
    published: list[Any] = published_params(family)
    widths = sorted({params.txt_embed_dim for params in published})
    if model.config.hidden_size not in widths:
        log.warning(
            "%s has states of width %d; published networks of %s take %s. Its states are for a network of that width.",
            name, model.config.hidden_size, family.title, " or ".join(map(str, widths)),
        )  # fmt: skip
    model = model.to(device).eval().requires_grad_(False)
    return TextEncoder(model, tokenizer, family, max_tokens or published[0].txt_max_length, instruction)


def _load(name: str, kind: str, example: str, family: Family, dtype: torch.dtype) -> tuple[Any, Any]:
    transformers = require("transformers")
    advice = f"Name a folder or a hub model such as {example}."
    if Path(name).is_file():
        raise ValueError(f"{name} is a file; transformers reads folders with config.json and a tokenizer. {advice}")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if config.model_type != kind:
            raise ValueError(f"it is a {config.model_type}, and {family.title} was trained with a {kind}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        return transformers.AutoModel.from_pretrained(name, dtype=dtype), tokenizer
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"the text encoder {name} cannot be used: {reason}. {advice}") from error
