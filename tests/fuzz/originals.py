"""Small checkpoint files that load, for the fuzzer to damage."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints.encoder_files import meta, timm, transformers
from fuzz.families import KINDS, POOL, sound
from safetensors.torch import save_file

import pixeldit_core as pc


def sound_files(folder: Path) -> dict[str, bytes]:
    """Small files that load, of each container and of several layouts."""
    params = pc.PixelDiTParams(
        hidden_size=8,
        num_groups=1,
        patch_depth=1,
        pixel_depth=1,
        patch_size=2,
        pixel_hidden_size=4,
        num_classes=3,
        mlp_hidden_size=8,
        pixel_attn_hidden_size=8,
        pixel_num_groups=1,
    )
    text = pc.PixelDiTT2IParams(
        hidden_size=8,
        num_groups=1,
        patch_depth=1,
        pixel_depth=1,
        pixel_attn_hidden_size=8,
        pixel_num_groups=1,
        patch_size=2,
        pixel_hidden_size=4,
        txt_embed_dim=4,
        txt_max_length=2,
        mlp_hidden_size=8,
    )
    models = {
        "class": pc.build_model("pixeldit", params, device="cpu"),
        "text": pc.build_model("pixeldit_t2i", text, device="cpu"),
    }
    files = {}
    for name, model in models.items():
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.fill_(0.5)
        model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0))
        path = pc.save_checkpoint(model, folder / f"{name}.safetensors")
        files[f"{name}.safetensors"] = path.read_bytes()
        layout = pc.save_checkpoint(model, folder / "comfyui.safetensors", layout="comfyui")
        files[f"{name}-comfyui.safetensors"] = layout.read_bytes()
        state = dict(model.network.state_dict())
        trainer = {
            "epoch": 3,
            "state_dict": {
                f"{start}{key}": value for start in ("denoiser.", "ema_denoiser.") for key, value in state.items()
            },
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}],
            "lr_schedulers": [{"milestones": collections.Counter([1, 2])}],
            "numpy": np.random.RandomState(0).get_state(),
            "dtype": torch.bfloat16,
        }
        kinds = {"plain": (2, {"state_dict": state}), "trainer": (2, trainer)}
        kinds |= {f"beside{protocol}": (protocol, {"ema": state, **beside()}) for protocol in (2, 4, 5)}
        for zipped in (True, False):
            for kind, (protocol, stored) in kinds.items():
                path = folder / "torch.ckpt"
                torch.save(stored, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
                files[f"{name}-{kind}-{'zip' if zipped else 'legacy'}.ckpt"] = path.read_bytes()
    return files | sound_families(folder) | sound_encoders(folder)


def sound_encoders(folder: Path) -> dict[str, bytes]:
    """Encoders of PixelDiT2 under the names of three programs; `network.safetensors` is left there, which needs one."""
    sizes = {"hidden_size": 8, "num_heads": 1, "depth": 1, "patch_size": 2, "num_classes": 3, "in_context_start": 0}
    sizes |= {"encoder_dim": 16, "encoder_depth": 1, "encoder_num_heads": 2, "mlp_hidden_size": 8}
    model = pc.build_model("pixeldit2", pc.PixelDiT2Params(**sizes), device="cpu")
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.fill_(0.5)
    pc.save_checkpoint(model, folder / "network.safetensors", encoder="none")
    encoder, files = timm(model), {}
    forms = {"timm.safetensors": encoder, "transformers.safetensors": transformers(encoder), "zip.pth": meta(encoder)}
    for form, tensors in {**forms, "legacy.pth": meta(encoder)}.items():
        path = folder / f"encoder-{form}"
        if path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip.pth")
        files[path.name] = path.read_bytes()
    return files


def beside() -> dict[str, Any]:
    """What trainers save beside the weights, and is stepped over."""
    return {
        "args": argparse.Namespace(lr=1e-4, out=pathlib.PurePosixPath("runs/7"), more=types.SimpleNamespace(a=[1])),
        "fid": np.float64(4.5),
        "history": [
            np.linspace(4, 5, 3),
            np.array(["cat"]),
            np.zeros(1, [("a", "f4")]),
            np.array([None], dtype=object),
        ],
        "buckets": {(64, 48): 7, 1.5: 9, 0.9999: {"a": 1}, None: 2**70},
        "others": [{1}, frozenset([2]), b"abc", bytearray(b"abc"), datetime.datetime.min, collections.deque([1], 2)],
        "random": [np.random.default_rng(0), torch.Generator()],
        "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))]),
        "tensor": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }


def sound_families(folder: Path) -> dict[str, bytes]:
    """The same of each other family, as its trainer writes it and as we do."""
    files = {}
    for kind in KINDS:
        number = next(number for number in range(POOL) if sound(number)[0] == kind)
        for form, zipped in (("zip", True), ("legacy", False)):
            path = folder / "trainer.ckpt"
            torch.save(sound(number)[2], path, _use_new_zipfile_serialization=zipped)
            files[f"{kind}-{form}.ckpt"] = path.read_bytes()
        again = pc.save_checkpoint(path, folder / "family.safetensors")
        files[f"{kind}.safetensors"] = again.read_bytes()
    return files
