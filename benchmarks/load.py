"""How long a checkpoint takes to inspect and to load, and the memory that loading needs beyond the file's pages.

    export PYTHONPATH=tests
    python benchmarks/load.py                  the text-to-image network (1.3 B), bfloat16, in several kinds of files
    python benchmarks/load.py --host           and through PixelDiT Loader's function, in ComfyUI

Each row is a separate process. Memory is the peak of its anonymous memory (RssAnon), relative to the size of the file:
the pages of a memory-mapped file belong to the system's cache, which frees them on demand. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host.comfyui import find_hosts
from native import python_path, start_host
from step import build

import pixeldit_core as pc

PRESET = "PixelDiT-T2I"
HEAD = ["file", "size", "step", "time", "peak", "peak / size"]


class Peak:
    """Peak of this process's anonymous memory while the block runs, in bytes above the start."""

    def __enter__(self) -> Peak:
        self.before = self.peak = anonymous_memory()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.done.set()
        self.thread.join()
        self.extra = max(self.peak, anonymous_memory()) - self.before

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def write_files(folder: Path) -> list[Path]:
    """The same random weights as each kind of file."""
    model = build(PRESET, "cpu", torch.bfloat16)
    with torch.no_grad():
        files = [pc.save_checkpoint(model, folder / "canonical.safetensors")]
        files.append(pc.save_checkpoint(model, folder / "comfyui.safetensors", "comfyui"))
        files.append(pc.save_checkpoint(model, folder / "fp8.safetensors", dtype=torch.float8_e4m3fn))
        files.append(folder / "official.pth")
        torch.save({"state_dict": {f"core.{k}": v for k, v in model.network.state_dict().items()}}, files[-1])
    return files


def steps(in_host: bool) -> dict[str, Callable[[Path], Any]]:
    if not in_host:
        return {
            "inspect": pc.inspect_checkpoint,
            "load": lambda path: pc.load_checkpoint(path, dtype=torch.bfloat16),
        }
    start_host("cpu", "host")
    module = next(value for key, value in sys.modules.items() if key.endswith(".nodes.host.load"))
    return {"PixelDiT Loader": lambda path: module.load_model(str(path), weight_dtype="bf16")}


def measure(path: Path, in_host: bool) -> None:
    """Prints the rows of one file."""
    size = path.stat().st_size
    for name, function in steps(in_host).items():
        begin = time.perf_counter()
        with Peak() as peak:
            kept = function(path)
        seconds = time.perf_counter() - begin
        row = [path.name, f"{size / 1e6:,.0f} MB", name, f"{seconds:.2f} s", f"{peak.extra / 1e6:,.0f} MB"]
        sys.stdout.write(f"| {' | '.join([*row, f'{peak.extra / size:.2f}'])} |\n")
        del kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="also in ComfyUI (COMFYUI_PATH, or ~/ComfyUI)")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        measure(options.file, options.inside)
        return
    sys.stdout.write(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        me = str(Path(__file__).resolve())
        for file in write_files(Path(folder)):
            subprocess.run([sys.executable, me, "--file", str(file)], check=True)
            for host in find_hosts()[: options.host]:
                command = [str(host.python), me, "--file", str(file), "--inside"]
                environment = {"PYTHONPATH": python_path(host), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
                subprocess.run(command, check=True, cwd=host.path, env=environment)


if __name__ == "__main__":
    main()
