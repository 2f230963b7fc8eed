"""The other half of a training, by the names of tensors: modules of a text encoder, and learned embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..families import Shapes
from .lora_folder import is_embedding_name

# A module's name with "_" for ".": what only a text encoder's half has before or in its names ...
_MARKED = re.compile(r"(^|_)(lora_te\d*_|lora_text_|text_encoders?_|te\d_|clip_[lg]_|text_model_)")
# ... and how language models name their layers: Gemma, Llama, Qwen, CLIP; T5; BERT; OpenCLIP
_LAYERS = re.compile(
    r"(^|_)layers_\d+_(self_attn_([qkvo]|out)_proj|mlp_(gate|up|down)_proj|mlp_fc[12])|block_\d+_layer_\d_"
    r"(SelfAttention|DenseReluDense)|encoder_layer_\d+_(attention_self|attention_output|intermediate|output)_"
    r"|(^|_)(transformer_resblocks_\d+_|language_model_|embed_tokens|lm_head)"
)
# Modules that no text encoder has: of transformers that generate images, some with a language model's layers in them
_IMAGE = re.compile(
    r"cross_attn|adaln|modulation|(time|timestep|patch|img|image|x)_(in|embed)|qkv_proj|gate_up_proj|moe_gen",
    re.IGNORECASE,
)
_EYES = re.compile(r"(^|_)(vision|visual)_")  # what lets some language models see images

_EMBEDDINGS = {"emb_params", "string_to_param", "soft_prompt", "prompt_embeddings", "trainable_tokens_delta"}
_ENCODERS = {"clip_g", "clip_l", "clip_h", "t5", "t5xxl", "gemma", "gemma2", "gemma2_2b", "llama", "qwen", "te"}
_TOKEN = re.compile(r"<[^<>]+>")
_BUNDLED = ("bundle_emb.", "emb.")  # before the names of embeddings in a LoRA
_WIDTHS = {768, 1024, 1280, 2048, 2304, 2560, 3072, 3584, 4096}  # of a text encoder's states
_MOST = 64  # tensors of a file of embeddings


def is_text_encoder(module: str) -> bool:
    """Whether a module is one of a text encoder (a language model)."""
    flat = module.replace(".", "_")
    layer = _LAYERS.search(flat) and not (_IMAGE.search(flat) or _EYES.search(flat))
    return bool(_MARKED.search(flat) or layer)


def is_text_half(modules: Iterable[str]) -> bool:
    """Whether a file is a text encoder's half of a training: it has modules of one, and none of another network."""
    flat = [flat for module in modules if not _EYES.search(flat := module.replace(".", "_"))]
    if any(_MARKED.search(module) for module in flat):
        return all(is_text_encoder(module) for module in flat)
    return any(_LAYERS.search(module) for module in flat) and not any(_IMAGE.search(module) for module in flat)


def is_bundled_embedding(name: str) -> bool:
    """Whether a tensor is a learned embedding that trainers put into a LoRA file."""
    return name.startswith(_BUNDLED) or name.endswith(".trainable_tokens_delta")


def are_embeddings(shapes: Shapes, stem: str) -> bool:
    """Whether all tensors of a file are learned embeddings: of textual inversion, prompt tuning, pivotal tuning.

    Args:
        stem: name of the file without its end, by which alone some embeddings can be detected.
    """
    tables = {name: shape for name, shape in shapes.items() if len(shape) > 0}
    if not 0 < len(tables) <= _MOST or any(len(shape) > 3 for shape in tables.values()):
        return False
    if all(map(_is_embedding, tables)):
        return True
    if all("." not in name and shape[-1] in _WIDTHS for name, shape in tables.items()):
        return True  # by the name of a new word
    return is_embedding_name(stem) and not any(name.endswith((".weight", ".bias")) for name in tables)


def _is_embedding(name: str) -> bool:
    pieces = name.split(".")
    named = any(piece in _EMBEDDINGS or _TOKEN.fullmatch(piece) for piece in pieces)
    return named or pieces[-1] in _ENCODERS or is_embedding_name(pieces[-1]) or is_bundled_embedding(name)
