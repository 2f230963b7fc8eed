"""Our text-to-image network against ComfyUI's built-in one: same weights, same call, same process.

    export PYTHONPATH=tests
    python benchmarks/native.py                     the ComfyUI in COMFYUI_PATH, around this pack, or in the home folder
    python benchmarks/native.py ../ComfyUI --size 512 --profile

Times what a sampler calls (`apply_model` of a loaded MODEL, with its adapter), in turns, batch 2 as with guidance, and
reports the median. Peak memory is what a call needs beyond the weights. Needs 20 GiB of memory.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host.comfyui import Host, find_hosts
from step import DTYPES, build, peak_memory, profile, seconds

import pixeldit_core as pc

ROOT = Path(__file__).resolve().parents[1]

PRESET = "PixelDiT-T2I"
HEAD = ["device", "dtype", "size", "native", "ours", "ratio", "native peak", "our peak", "ratio", "difference"]


def find_host(folder: str | None) -> Host:
    if folder:
        os.environ["COMFYUI_PATH"] = folder
    hosts = find_hosts()
    if not hosts:
        raise SystemExit("no ComfyUI found: pass its folder, or set COMFYUI_PATH (and COMFYUI_PYTHON).")
    return hosts[0]


def python_path(host: Host) -> str:
    """ComfyUI first: its `nodes` and `server` are not ours."""
    return os.pathsep.join(map(str, (host.path, ROOT, ROOT / "tests")))


def run_in_host(host: Host) -> int:
    """The same command again, with ComfyUI's Python."""
    environment = dict(os.environ, PYTHONPATH=python_path(host), HF_HUB_OFFLINE="1")
    command = [str(host.python), str(Path(__file__).resolve()), "--inside", *sys.argv[1:]]
    return subprocess.run(command, cwd=host.path, env=environment).returncode


def start_host(device: str, attention: str) -> None:
    """What main.py does before it starts a server, and the pack loaded as it does."""
    logging.basicConfig(level=logging.WARNING)
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = device == "cpu"
    args.use_pytorch_cross_attention = attention == "pytorch"
    import comfy.model_management
    import utils.extra_config  # noqa: F401 - before `nodes` puts comfy/ first on the path

    # on a CPU ComfyUI would compute a bfloat16 network in float32; this compares networks, not that choice
    comfy.model_management.should_use_bf16 = lambda *arguments, **options: True
    import nodes

    if not asyncio.run(nodes.load_custom_node(str(ROOT))):
        raise SystemExit("the pack does not load in this ComfyUI.")


@torch.no_grad()
def write_checkpoint(path: Path, dtype: torch.dtype) -> None:
    """Random weights with keys that both loaders accept."""
    pc.save_checkpoint(build(PRESET, "cpu", dtype), path, "comfyui")


def load_both(path: Path, name: str) -> dict[str, Any]:
    """ComfyUI's and our model, each on its device."""
    import comfy.model_management
    import comfy.sd

    suffix = ".nodes.host.load"
    ours = next(module for key, module in sys.modules.items() if key.endswith(suffix) and str(ROOT) in module.__file__)
    patchers = {
        "native": comfy.sd.load_diffusion_model(str(path), model_options={"dtype": DTYPES[name]}),
        "ours": ours.load_model(str(path), weight_dtype=name),
    }
    comfy.model_management.load_models_gpu(list(patchers.values()))
    return {name: patcher.model for name, patcher in patchers.items()}


def make_call(model: Any, size: int, device: str) -> Callable[[], torch.Tensor]:
    """What a guided step of a sampler asks of a MODEL."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, size, size, generator=generator).to(device)
    text = torch.randn(2, 300, 2304, generator=generator).to(device)
    sigma = torch.full((2,), 0.5, device=device)
    return lambda: model.apply_model(x, sigma, c_crossattn=text, transformer_options={})


def difference(calls: dict[str, Callable]) -> str:
    """Largest difference of the two results, and the norm of it relative to the result."""
    native, ours = calls["native"](), calls["ours"]()
    return f"{(native - ours).abs().max():.1e}, {(native - ours).norm() / native.norm():.1e} relative"


@torch.inference_mode()
def measure(models: dict[str, Any], device: str, name: str, size: int, options: argparse.Namespace) -> list[str]:
    calls = {name: make_call(model, size, device) for name, model in models.items()}
    apart = difference(calls)  # warms up, too
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.repeat):
        for kind in list(calls)[:: 1 if turn % 2 else -1]:  # neither is always the one after the other
            times[kind].append(seconds(calls[kind], device))
    if options.profile:
        for kind, call in calls.items():
            sys.stdout.write(f"\n{kind}, {size}: {times[kind]}\n")
            profile(call, device)
    native, ours = (statistics.median(times[kind]) for kind in ("native", "ours"))
    row = [device, name, str(size), f"{native:.3f} s", f"{ours:.3f} s", f"{ours / native:.3f}"]
    row += [f"{memory['native']:.0f} MiB", f"{memory['ours']:.0f} MiB", f"{memory['ours'] / memory['native']:.3f}"]
    return [*row, apart]


def run_inside(options: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() and not options.cpu else "cpu"
    start_host(device, options.attention)
    import comfyui_version
    from comfy.ldm.modules import attention

    sys.stdout.write(f"{PRESET}, batch 2, {torch.get_num_threads()} threads, torch {torch.__version__}, ")
    sys.stdout.write(f"ComfyUI {comfyui_version.__version__}, {attention.optimized_attention.__name__}\n\n")
    sys.stdout.write(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n")
    for name in options.dtype:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "random.safetensors"
            write_checkpoint(path, DTYPES[name])
            models = load_both(path, name)
            for size in options.size:
                sys.stdout.write(f"| {' | '.join(measure(models, device, name, size, options))} |\n")
                sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "host", nargs="?", help="the folder of a ComfyUI with a built-in PixelDiT (default: the first found)"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[512, 1024], help="height and width (default: 512 1024)")
    parser.add_argument("--dtype", nargs="+", default=["bf16"], choices=list(DTYPES))
    parser.add_argument("--cpu", action="store_true", help="on the CPU, even where there is a GPU")
    attention = {"choices": ["host", "pytorch"], "help": "ComfyUI's choice of attention, or PyTorch's for both"}
    parser.add_argument("--attention", default="host", **attention)
    parser.add_argument("--repeat", type=int, default=3, help="timed calls of each; the median counts (default: 3)")
    parser.add_argument("--profile", action="store_true", help="the operations that take the time")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        raise SystemExit(run_in_host(find_host(options.host)))
    run_inside(options)


if __name__ == "__main__":
    main()
