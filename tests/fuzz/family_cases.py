"""The files of a case: a changed checkpoint of another family, or a LoRA."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from checkpoints.encoder_files import CONFIG, PLACE, meta, transformers
from fuzz.families import ALIASES, POOL, sound, weights_of
from fuzz.family_mutations import (
    NAN,
    change_about,
    change_config,
    change_names,
    change_parts,
    change_tensor,
    states_of,
    values,
)
from safetensors.torch import save
from torch import Tensor

import pixeldit_core as pc
from pixeldit_core.checkpoints.metadata import write_metadata


def to_json(value: Any) -> str:
    def plain(of: Any) -> Any:
        if isinstance(of, dict):
            return {str(key): plain(part) for key, part in of.items()}
        if isinstance(of, list | tuple):
            return [plain(part) for part in of]
        return of if of is None or isinstance(of, bool | int | float | str) else str(of)

    return json.dumps(plain(value))


def pickled(dice: random.Random, stored: dict[Any, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(stored, file, _use_new_zipfile_serialization=dice.random() < 0.7)
    return file.getvalue()


def safetensors(state: dict[str, Any], metadata: dict[str, str]) -> bytes:
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return save({key: value.contiguous().clone() for key, value in tensors.items()}, metadata)


def family_case(dice: random.Random, mutate: bool = True) -> dict[str, bytes]:
    """The files of a case, the checkpoint first; a config.json may lie beside it."""
    kind, params, stored = sound(dice.randrange(POOL))
    stored = dict(stored)
    form = dice.choice(("trainer", "trainer", "trainer", "bare", "metadata", "ours"))
    about = {"family": kind, "params": asdict(params)}
    settings = pc.SamplingSettings(steps=2, cfg=2.0, solver="euler", size=(8, 8))
    if form == "ours":
        spec = pc.ModelSpec(pc.FAMILIES[kind], params, (("a",),) * 3 if kind != "pixelhdm" else None, settings)
        about = json.loads(write_metadata(spec)["pixeldit"])
    ways: list[Callable] = [change_config] * 3 + [change_tensor, change_names] + [change_parts] * (form == "trainer")
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3)) if mutate else 0):
        dice.choice(ways)(dice, stored)
        if form == "ours" and dice.random() < 0.7:
            change_about(dice, about)
    config = stored.get("config")
    if form == "trainer":
        try:
            return {"family.pt": pickled(dice, stored)}
        except Exception:  # torch has no way to write it
            return {"family.pt": pickled(dice, {"config": None})}
    state = dice.choice(states_of(stored))
    if form == "bare" and dice.random() < 0.5:
        files = {"family.pt": pickled(dice, state)}
    elif form == "ours":
        return {"family.safetensors": safetensors(state, {"format": "pt", "pixeldit": to_json(about)})}
    else:
        files = {"family.safetensors": safetensors(state, {} if form == "bare" else {"config": to_json(config)})}
    if form == "bare":
        beside = {"model_type": "pixelhdm" if kind == "pixelhdm" else "pixeldit"}
        beside |= {key: values(dice) for key in dice.sample(BESIDE, 2)} if mutate and dice.random() < 0.5 else {}
        config = (beside | config) if isinstance(config, dict) else config
        files["config.json"] = to_json(config).encode("utf-8", "replace")
    return files


BESIDE = ("sample_size", "image_size", "flow_shift", "default_steps", "default_cfg_scale", "scheduler", "architectures",
          "_class_name", "time_convention", "id2label")  # fmt: skip


def lora_case(dice: random.Random, shapes: dict[str, tuple[int, ...]]) -> dict[str, bytes]:
    """A LoRA for a network, under the names of any writer and its own or its aliases; whole, or not."""
    weights = [key for key, shape in shapes.items() if len(shape) == 2 and key.endswith(".weight")]
    modules = dice.sample(weights, min(len(weights), dice.choice((1, 2, 5))))
    modules += [key for key in shapes if len(shapes[key]) != 2][:1] if dice.random() < 0.1 else []
    start = dice.choice(("", "", "base_model.model.", "diffusion_model.", "lora_unet_", "transformer.", "model."))
    down, up = dice.choice((("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")))
    state: dict[str, Any] = {}
    rank = dice.choice((1, 2, 3))
    for key in modules:
        shape = shapes[key]
        names = [key.replace(name, alias) for alias, name in ALIASES.items() if name in key] + [key]
        for name in names if dice.random() < 0.05 else [dice.choice(names)]:
            path = name.removesuffix(".weight")
            path = start + (path.replace(".", "_") if start.endswith("_") else path)
            state[f"{path}.{down}.weight"] = torch.ones(rank, *shape[1:])
            state[f"{path}.{up}.weight"] = torch.ones(*shape[:1], rank)
            if dice.random() < 0.3:
                state[f"{path}.alpha"] = torch.tensor(dice.choice((1.0, 0.0, NAN, 1e308, -1.0)), dtype=torch.float64)
    settings: dict[str, Any] = {
        "lora_alpha": 2,
        "r": rank,
        "alpha_pattern": {"attention.q_proj": 3},
        "use_rslora": True,
    }
    for _ in range(dice.choice((0, 1, 1, 2))):
        kind = dice.randrange(4)
        if kind == 0:
            change_tensor(dice, state)
        elif kind == 1:
            change_names(dice, state)
        elif kind == 2 and state:
            state[dice.choice(list(state)) + dice.choice((".x", "_magnitude_vector", ".dora_scale"))] = torch.ones(1)
        else:
            settings[dice.choice(list(settings))] = values(dice)
    metadata = {"lora_adapter_metadata": to_json(settings)} if dice.random() < 0.4 else {}
    if dice.random() < 0.5:
        return {"family.safetensors": safetensors(state, metadata), "adapter_config.json": to_json(settings).encode()}
    return {"family.pt": pickled(dice, state)}


def encoder_case(dice: random.Random) -> dict[str, bytes]:
    """An encoder under the names of any of three programs, whole or not, with a configuration beside it."""
    params = pc.PixelDiT2Params(hidden_size=8, num_heads=1, depth=1, in_context_start=0, encoder_dim=16,
                                encoder_depth=dice.choice((1, 2)), encoder_num_heads=2)  # fmt: skip
    state = weights_of("pixeldit2", params, dice)
    encoder = {key.removeprefix(PLACE): value for key, value in state.items() if key.startswith(PLACE)}
    named: dict[str, Any] = dice.choice((dict, transformers, meta))(encoder)
    start = dice.choice(("", "", "", "model.", "backbone.", f"ema_denoiser.{PLACE}"))
    named = {start + key: value for key, value in named.items()}
    config: Any = dict(CONFIG) | {"num_hidden_layers": params.encoder_depth, "pretrained_cfg": {"mean": [0.485] * 3}}
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        kind = dice.randrange(4)
        if kind == 0:
            change_tensor(dice, named)
        elif kind == 1:
            change_names(dice, named)
        elif kind == 2:
            config[dice.choice((*config, "image_mean", "architecture"))] = values(dice)
        else:
            del config[dice.choice(list(config))]
    files = {"family.pt": pickled(dice, named)} if dice.random() < 0.5 else {
        "family.safetensors": safetensors(named, {"format": dice.choice(("pt", "sat493m", "x" * 9999))})
    }  # fmt: skip
    beside = dice.choice(("config.json", "preprocessor_config.json", None))
    return files | ({beside: to_json(config).encode("utf-8", "replace")} if beside else {})
