"""Checkpoints of the other families (x-prediction networks, PixelHDM) as their trainers write them, whole and hostile.

Nothing of a file's bytes is damaged here: what is inside of a well-formed one is not what it should be.
"""

from __future__ import annotations

import collections
import functools
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

import pixeldit_core as pc
from pixeldit_core.checkpoints.metadata import write_metadata

POOL = 300
KINDS = ("xpred_dit", "xpred_mmdit", "xpred_pixeldit", "xpred_mmpixeldit", "pixelhdm", "pixelhdm")
ALIASES = pc.FAMILIES["pixelhdm"].aliases
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


# ---- sound files -----------------------------------------------------------------------------------------------------


def xpred_params(dice: random.Random, kind: str) -> Any:
    heads, size = dice.choice((1, 2, 4)), dice.choice((2, 4, 8, 32))
    declared = {"dim": dice.choice((4, 6, 16)), "depth": dice.choice((1, 2)), "heads": heads, "dim_head": size}
    declared |= {"patch_size": dice.choice((1, 2, 4)), "in_channels": dice.choice((1, 2, 3, 3, 4, 5)), "num_classes": 3}
    declared |= {"mlp_hidden_dim": dice.choice((1, 16)), "qk_norm": dice.choice(("", "rmsnorm", "layernorm"))}
    declared |= {"use_abs_pe": dice.random() < 0.7, "image_size": dice.choice((4, 6, 8, 9))}
    declared |= {"num_registers": dice.choice((1, 2))} if "mm" in kind else {}
    if "pixel" in kind:
        declared |= {"pixel_dim": dice.choice((1, 4)), "pixel_depth": 1, "compress_ratio": dice.choice((1, 2))}
        declared |= {"pixel_mlp_hidden_dim": 4}
    return pc.FAMILIES[kind].params(**declared)


def pixelhdm_params(dice: random.Random) -> Any:
    declared = {"hidden_dim": 8, "num_heads": 2, "num_kv_heads": dice.choice((1, 2)), "pixel_dim": dice.choice((2, 3))}
    declared |= {"patch_size": dice.choice((1, 2, 4)), "patch_layers": dice.choice((1, 2)), "pixel_layers": 1}
    declared |= {"bottleneck_dim": dice.choice((1, 4)), "time_embed_dim": 4, "mrope_text_dim": 4, "mrope_img_h_dim": 0}
    declared |= {"mrope_img_w_dim": 0, "gate_type": dice.choice(("headwise", "elementwise"))}
    declared |= {"gate_bias": dice.random() < 0.3, "mlp_ratio": dice.choice((None, 2.0))}
    channels = dice.choice((3, 3, 3, 1, 4))
    return pc.FAMILIES["pixelhdm"].params(**declared, in_channels=channels, out_channels=channels)


def weights_of(kind: str, params: Any, dice: random.Random) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(dice.randrange(2**31))
    shapes = pc.build_model(kind, params).network.state_dict()
    return {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in shapes.items()}


def xpred_config(params: Any) -> dict[str, Any]:
    """As the trainer's file has it."""
    mean = [0.5] * params.in_channels
    names = {"pixel_dim": "pit_dim", "pixel_depth": "pit_depth"} | (
        {"dim": "dit_dim", "depth": "dit_depth"} if params.pixel_depth else {}
    )
    declared = {names.get(key, key): value for key, value in asdict(params).items()}
    model = {key: value for key, value in declared.items() if not key.startswith(("image", "num_classes", "in_"))}
    model |= {"qk_norm": params.qk_norm or None}
    del model["mlp_hidden_dim"], model["pixel_mlp_hidden_dim"]
    dataset = {"name": "mnist", "image_size": params.image_size, "in_channels": params.in_channels}
    dataset |= {"num_classes": params.num_classes, "normalize_mean": mean, "normalize_std": list(mean)}
    return {"dataset": dataset, "training": {"lr": 1e-4, "epochs": 3}, "model": model}


def pixelhdm_config(params: Any) -> dict[str, Any]:
    declared = {key: value for key, value in asdict(params).items() if value is not None}
    return declared | {"model_type": "pixelhdm", "cfg_scale": 7.5, "repa_enabled": True}


def with_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = {key: (alias, name) for key in state for alias, name in ALIASES.items() if name in key}
    return state | {key.replace(name, alias): state[key] for key, (alias, name) in pairs.items()}


def trained(kind: str, params: Any, dice: random.Random) -> dict[str, Any]:
    """What a trainer saves, as one dictionary."""
    state = weights_of(kind, params, dice)
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    if kind != "pixelhdm":
        stored = {"epoch": 3, "model_state_dict": state, "ema_model_state_dict": dict(state)}
        stored |= {"optimizer_state_dict": optimizer, "model_type": kind, "dataset_name": "mnist", "loss": 0.5}
        return stored | {"config": xpred_config(params)}
    model = with_aliases(state) | {"_dino_encoder.norm.weight": torch.zeros(2), "_dino_projector.0.bias": torch.ones(2)}
    shadow = {"decay": 0.999, "num_updates": 3, "shadow": dict(state)} if dice.random() < 0.7 else dict(state)
    stored = {"model": model, "ema": shadow, "optimizer": optimizer, "config": pixelhdm_config(params)}
    return stored | {"state": {"step": 7, "epoch": 1}, "scheduler": {"last_epoch": 3}, "version": "1.0"}


@functools.cache
def sound(number: int) -> tuple[str, Any, dict[str, Any]]:
    """One of a number of networks: its kind, its sizes, and what its trainer saves."""
    dice = random.Random(number)
    kind = dice.choice(KINDS)
    params = pixelhdm_params(dice) if kind == "pixelhdm" else xpred_params(dice, kind)
    return kind, params, trained(kind, params, dice)


# ---- mutations -------------------------------------------------------------------------------------------------------

STATES = ("model_state_dict", "ema_model_state_dict", "model", "ema")


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
    telling = [key for key in keys if any(part in key for part in TELLING)]
    if not keys:
        return
    key = dice.choice(telling if telling and dice.random() < 0.6 else keys)
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


TELLING = (
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
    """The same of what our own files say of themselves."""
    inner = dice.choice([about, *(part for part in about.values() if isinstance(part, dict))] + [about["params"]] * 4)
    if isinstance(inner, dict) and inner:
        inner[dice.choice(list(inner) if dice.random() < 0.9 else PARAMS)] = values(dice)


# ---- files -----------------------------------------------------------------------------------------------------------


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
        spec = pc.ModelSpec(pc.FAMILIES[kind], params, (("a",),) * 3 if "xpred" in kind else None, settings)
        about = json.loads(write_metadata(spec)["pixeldit"])
    ways: list[Callable] = [change_config] * 3 + [change_tensor, change_names] + [change_parts] * (form == "trainer")
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3)) if mutate else 0):
        dice.choice(ways)(dice, stored)
        if form == "ours" and dice.random() < 0.7:
            change_about(dice, about)
    config = stored.get("config")
    if form == "trainer":
        try:
            return {"relative.pt": pickled(dice, stored)}
        except Exception:  # torch has no way to write it
            return {"relative.pt": pickled(dice, {"config": None})}
    state = dice.choice(states_of(stored))
    if form == "bare" and dice.random() < 0.5:
        files = {"relative.pt": pickled(dice, state)}
    elif form == "ours":
        return {"relative.safetensors": safetensors(state, {"format": "pt", "pixeldit": to_json(about)})}
    else:
        files = {"relative.safetensors": safetensors(state, {} if form == "bare" else {"config": to_json(config)})}
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
        return {"relative.safetensors": safetensors(state, metadata), "adapter_config.json": to_json(settings).encode()}
    return {"relative.pt": pickled(dice, state)}
