"""A pack for ComfyUI that times what the server does with a prompt; benchmarks/first_image.py puts it beside ours.

It writes one line of JSON per call of the functions below to the file STOPWATCH: its name, how deep it is in others,
when it began and ended (`time.monotonic`, which all processes share), and which file or module it was about. And it has
a node in the place of a text encoder.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

# By the end of a module's name: what is called there, by the name under which that module calls it
TIMED = {
    "execution": ["validate_prompt", "PromptExecutor.execute"],
    "comfy.model_management": ["load_models_gpu"],
    "comfy.model_base": ["BaseModel.apply_model"],
    ".nodes.loader": ["fingerprint", "fingerprint_encoder", "load_model"],
    ".nodes.conditioning": ["class_conditioning"],
    ".nodes.sampling": ["render"],
    ".nodes.host.load": ["read_weights", "load_weights", "PixelDiTConfig.get_model"],
    ".nodes.host.render": ["find_spec", "resolve_settings", "sample"],
    ".pixeldit_core.checkpoints.load": ["find_source", "read_source", "read_config", "parse_header", "detect"],
    ".pixeldit_core.checkpoints.inspect": ["find_source", "read_source_shapes", "parse_header", "detect"],
    ".pixeldit_core.checkpoints.read": ["check_zeros", "read_safetensors", "read_pickled"],
    ".pixeldit_core.checkpoints.detect": ["build_on_meta", "check_strict"],
    "nodes": ["SaveImage.save_images"],
}
HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "scipy", "torchvision", "transformers", "einops", "PIL")

_here = threading.local()


def write(name: str, begin: float, end: float, depth: int = 0, **more: Any) -> None:
    with open(os.environ["STOPWATCH"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "begin": begin, "end": end, "depth": depth, **more}) + "\n")


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which writes how long each of its calls took."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        begin, _here.depth = time.monotonic(), getattr(_here, "depth", 0) + 1
        try:
            return function(*arguments, **options)
        finally:
            _here.depth -= 1
            write(name, begin, time.monotonic(), _here.depth)

    @functools.wraps(function)
    async def wait(*arguments: Any, **options: Any) -> Any:
        begin = time.monotonic()
        try:
            return await function(*arguments, **options)
        finally:
            write(name, begin, time.monotonic())

    return wait if inspect.iscoroutinefunction(function) else call


def watch_functions() -> None:
    for ending, names in TIMED.items():
        module = next((sys.modules[key] for key in list(sys.modules) if _is(key, ending)), None)
        for name in names if module else ():
            *holders, last = name.split(".")
            holder = functools.reduce(getattr, holders, module)
            if (function := getattr(holder, last, None)) is not None:
                setattr(holder, last, timed(name, function))


def watch_files() -> None:
    """Writes every file of weights that Python opens, and the first import of a heavy package."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]).endswith((".safetensors", ".pth", ".ckpt")):
            now = time.monotonic()
            write("open", now, now, getattr(_here, "depth", 0), file=os.path.basename(str(arguments[0])))
        elif event == "import" and arguments[0] in HEAVY and arguments[0] not in sys.modules:
            now = time.monotonic()
            write("import", now, now, getattr(_here, "depth", 0), module=arguments[0])

    sys.addaudithook(hook)


def _is(name: str, ending: str) -> bool:
    return name.endswith(ending) if ending.startswith(".") else name == ending


def started() -> float:
    """When this process began, by `time.monotonic` (Linux)."""
    with open("/proc/self/stat", encoding="ascii") as file:
        ticks = float(file.read().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


class RandomText:
    """States of a text that no encoder made."""

    CATEGORY = "benchmarks"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        whole = ("INT", {"default": 0, "min": 0, "max": 1_000_000})
        return {"required": {"seed": whole, "tokens": whole, "width": whole}}

    def make(self, seed: int, tokens: int, width: int) -> tuple[list]:
        generator = torch.Generator().manual_seed(seed)
        return ([[torch.randn(1, tokens, width, generator=generator), {}]],)


NODE_CLASS_MAPPINGS = {"RandomText": RandomText}


def watch() -> None:
    from server import PromptServer  # ComfyUI's

    async def begin(_: Any) -> None:
        now = time.monotonic()
        write("server ready", started(), now, heavy=[name for name in HEAVY if name in sys.modules])
        watch_functions()
        watch_files()

    PromptServer.instance.app.on_startup.append(begin)


watch()
