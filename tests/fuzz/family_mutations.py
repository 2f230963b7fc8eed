"""Changes of a family's checkpoint: its bytes are well-formed, but its content is not what it should be."""

from __future__ import annotations

import collections
import math
import random
from typing import Any

import torch
from fuzz.families import ALIASES
from torch import Tensor

NAN, INF = math.nan, math.inf

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, 7, -1, 255, 2**14, 2**15, 2**31, 2**63, 2**64, 10**30, 10**400),
    *(0.5, 4.0, 16.0, 1e-320, 1e308, -0.5, NAN, INF, -INF),
    *(
        "",
        "x",
        "é\0\n",
        "layernorm",
        "rmsnorm",
        "silu",
        "elementwise",
        "cifar10",
        "pixelhdm",
        "9" * 6000,
        "é" * 100_000,
    ),
    *([], [0.5], [0.5, 0.5], [0.25] * 3, [0.5] * 4, [0.5] * 5, [[0.5]], [NAN], [INF] * 3, [1e308] * 3, [10**400]),
    *([0.0], [-1.0] * 3, [1e-320] * 3, ["0.5"] * 3, [None] * 3, [True], list(range(4000)), (), (0.5,)),
    *({}, {"a": 1}, {"name": []}, {"dataset": {}}, {3: 4, None: 5, (1, 2): 6}, {"": ""}, torch.bfloat16),
    *(collections.Counter("ab"), torch.Size([2])),
)


def values(dice: random.Random) -> Any:
    """Something that a configuration should not have."""
    if dice.random() < 0.05:
        deep: Any = {}
        for _ in range(dice.choice((10, 15, 17, 200))):
            deep = {"model": deep} if dice.random() < 0.5 else [deep]
        return deep
    return torch.zeros(dice.choice(((), (2,), (0, 3)))) if dice.random() < 0.05 else dice.choice(VALUES)


STATES = ("model_state_dict", "ema_model_state_dict", "model", "ema", "state_dict")


def states_of(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Every state dict, copied in its place, so that the other one stays as it is."""
    found = []
    for name in STATES:
        if isinstance(stored.get(name), dict):
            stored[name] = dict(stored[name])
            inner = stored[name].get("shadow")
            if isinstance(inner, dict):
                stored[name]["shadow"] = dict(inner)
            found.append(stored[name]["shadow"] if isinstance(inner, dict) else stored[name])
    return found or [stored]


def change_config(dice: random.Random, stored: dict[str, Any]) -> None:
    """One or several values replaced, or parts, or all of it; or with names of another kind."""
    config = stored.get("config")
    if not isinstance(config, dict) or dice.random() < 0.06:
        stored["config"] = values(dice)
        return
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    stored["config"] = config
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        part = dice.choice(parts)
        kind = dice.random()
        if kind < 0.7 and part:
            part[dice.choice(list(part))] = values(dice)
        elif kind < 0.85 and part:
            del part[dice.choice(list(part))]
        elif kind < 0.93:
            part[dice.choice((3, None, True, 2.5, (1, "a"), "", "é", "x" * 2000, *PARAMS))] = values(dice)
        else:
            part.clear()


PARAMS = ("image_mean", "image_std", "heads", "dim_head", "mlp_ratio", "mrope_theta", "time_eps", "num_classes", "size")


def change_tensor(dice: random.Random, stored: dict[str, Any]) -> None:
    """A tensor of another shape or type, of odd rank, empty, or no tensor at all."""
    state = dice.choice(states_of(stored))
    keys = [key for key in state if isinstance(state[key], Tensor)]
    decisive = [key for key in keys if any(part in key for part in DECISIVE)]
    if not keys:
        return
    key = dice.choice(decisive if decisive and dice.random() < 0.6 else keys)
    value, kind = state[key], dice.randrange(9)
    at = dice.randrange(value.ndim) if value.ndim else 0
    if kind == 0 and value.ndim:
        value = value.narrow(at, 0, dice.randrange(value.shape[at] or 1)).clone()
    elif kind == 1 and value.ndim:
        value = torch.cat([value] * dice.choice((2, 3)), dim=at)
    elif kind == 2 and value.ndim:
        value = torch.cat([value, value.narrow(at, 0, min(1, value.shape[at]))], dim=at)
    elif kind == 3:
        value = value[(None,) * dice.choice((1, 2, 14))]
    elif kind == 4:
        value = value.flatten() if dice.random() < 0.5 else value.new_tensor(0.5)
    elif kind == 5:
        value = value.movedim(0, -1).contiguous() if value.ndim else value
    elif kind == 6:
        value = value.to(dice.choice(DTYPES))
    elif kind == 7:
        value = value.new_zeros([0 if axis == at else size for axis, size in enumerate(value.shape)] or [0, 3])
    else:
        value = dice.choice((value * NAN, value * 1e38, value * 0, None, "x", [value], {"a": value}))
    state[key] = value


DECISIVE = (
    "registers",
    "pos_emb",
    "q_norm",
    "k_norm",
    "embed",
    "to_",
    "compress",
    "attention",
    "proj_",
    "class",
    "gate",
)

DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool,
          torch.complex64, torch.uint8)  # fmt: skip


def change_names(dice: random.Random, stored: dict[str, Any]) -> None:
    """Tensors left out, added or renamed; aliases without the tensor they stand for, or that disagree with it."""
    state = dice.choice(states_of(stored))
    names = [key for key in state if isinstance(key, str)]
    if not names:
        return
    key, kind = dice.choice(names), dice.randrange(9)
    aliased = [(name, alias) for name in names for alias in ALIASES.values() if alias in name]
    if kind == 0:
        del state[key]
    elif kind == 1:
        for name in [name for name in names if key.rsplit(".", 1)[0] in name]:
            del state[name]
    elif kind == 2:
        start = dice.choice(("module.", "_orig_mod.", "ema.", "shadow.", "model.", "x.", "blocks.7.", ""))
        for name in names:
            state[start + name] = state.pop(name)
    elif kind == 3:
        state[dice.choice(ODD)] = dice.choice((torch.zeros(1), torch.zeros(0), state[key], 3))
    elif kind == 4 and "k_norm" in "".join(names):
        gone = dice.choice(("k_norm", "q_norm", "q_norm.bias", "0.attn.q_norm", "0.attention.k_norm"))
        for name in names:
            if gone in name:
                del state[name]
    elif kind in (5, 6) and aliased:
        name, full = dice.choice(aliased)
        alias = name.replace(full, next(short for short, known in ALIASES.items() if known == full))
        value = state[name]
        if dice.random() < 0.5:
            del state[name]
        if isinstance(value, Tensor):
            state[alias] = dice.choice((value + 1, value, value[None][:0], value[None], value.flatten(), value.half()))
    elif kind == 7:
        state[key + dice.choice((".bias", ".weight", "_scale", ".comfy_quant", ".lora_A.weight"))] = torch.ones(1)
        state[key.rpartition(".")[0] + dice.choice((".weight_scale", ".comfy_quant"))] = torch.ones(())
    else:
        state[key] = state[dice.choice(names)]


ODD = ("patch_blocks.0.attention.q_proj.attention.q_proj.weight", "attention.q_proj.weight", "attention.q_proj.",
       "patch_blocks.9.attention.q_proj.weight", "blocks.3.norm1.weight", "pit_blocks.0.x", "pit_blocks.", "a",
       "class_registers", "register_pos_embed", "pos_embedding", "q_norm.weight", "blocks.0.attn.q_norm.weight",
       "pit_blocks.0.attn.compress.proj.weight", "patch_blocks.0.attention.gate.proj.bias", "s_embedder.proj.bias",
       "time_mlp.1.weight", "scaled_fp8", "é\0", "blocks.²", "dit_blocks.0.x", "text_encoders.x")  # fmt: skip


def change_parts(dice: random.Random, stored: dict[str, Any]) -> None:
    """A part of the file left out, replaced, or given another's name."""
    if not stored:
        return
    key, other = dice.choice(list(stored)), dice.choice(list(stored))
    kind = dice.randrange(4)
    if kind == 0:
        del stored[key]
    elif kind == 1:
        stored[key] = values(dice)
    elif kind == 2:
        stored[key], stored[other] = stored[other], stored[key]
    else:
        stored[dice.choice((*STATES, "state_dict", "shadow", "model_type", "dataset_name", 7, "é"))] = (
            stored[key] if dice.random() < 0.5 else values(dice)
        )


def change_about(dice: random.Random, about: dict[str, Any]) -> None:
    """The same of the metadata in our own files."""
    inner = dice.choice([about, *(part for part in about.values() if isinstance(part, dict))] + [about["params"]] * 4)
    if isinstance(inner, dict) and inner:
        inner[dice.choice(list(inner) if dice.random() < 0.9 else PARAMS)] = values(dice)
