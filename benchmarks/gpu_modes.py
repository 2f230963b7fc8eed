"""Rows of the GPU table of ComfyUI's memory modes: a server for each, which makes the same image three times.

Run by gpu.py in a process of its own: python benchmarks/gpu_modes.py '{"size": 256, ...}' writes a line of JSON for
each row.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gpu_clock as clock
from gpu_rows import Row, Task, evaluations, make_model, name_of
from host.comfyui import ROOT, Host, find_hosts
from host.server import PACK, Server, prompt

import pixeldit_core as pc

MODES = ("", "--lowvram", "--gpu-only", "--fp16-intermediates")  # "" = the default, which has Dynamic VRAM where it can
STEPS = 12
RUNS = 3  # of which the first loads the weights


@contextlib.contextmanager
def serve(host: Host, base: Path, options: list[str], limit: float = 120) -> Iterator[Server]:
    """A ComfyUI server with these options and this pack."""
    for folder in ("custom_nodes", "models/diffusion_models", "output", "input", "user", "temp"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    os.symlink(ROOT, base / "custom_nodes" / PACK, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(host.python), "main.py", "--disable-api-nodes", "--port", str(port), "--base-directory", str(base)]
    command += ["--database-url", "sqlite:///:memory:", *options]
    with (base / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=host.path, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        server = Server(host, port, base)
        try:
            wait(server, process, time.monotonic() + limit)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait(server: Server, process: subprocess.Popen, end: float) -> None:
    while time.monotonic() < end and process.poll() is None:
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the server did not start: {server.log.strip().splitlines()[-1:]}")


def seconds(entry: dict[str, Any]) -> float:
    """Of a prompt, from its history.

    Raises:
        RuntimeError: it failed.
    """
    if "refused" in entry:
        raise RuntimeError(json.dumps(entry["refused"]))
    messages = dict(entry["status"]["messages"])
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(messages.get("execution_error", {}).get("exception_message", "the prompt failed"))
    return (messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]) / 1000


def measure(host: Host, task: Task, file: Path, row: Row, options: list[str]) -> None:
    """First image with the weights loaded, later ones, and what the GPU's memory holds after them."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        (base / "models/diffusion_models").mkdir(parents=True)
        os.symlink(file, base / "models/diffusion_models" / file.name)
        with serve(host, base, options) as server:
            times = []
            for seed in range(RUNS):
                graph = prompt(file.name, steps=STEPS, width=task.size, height=task.size, batch_size=row.batch)
                graph["3"]["inputs"] |= {"cfg": 3.0, "cfg_interval_start": 0.0, "cfg_interval_end": 1.0, "seed": seed}
                graph["2"]["inputs"]["class_name"] = "7"
                times.append(seconds(server.run(graph)))
            device = server.get("/system_stats")["devices"][0]
    row.guided = min(times[1:]) / STEPS
    row.note = f"first image {times[0]:.2f} s"
    if device["type"] == "cuda":
        row.peak = (device["vram_total"] - device["vram_free"]) / clock.MIB


def main() -> None:
    given = json.loads(sys.argv[1])
    extra, modes = given.pop("options"), given.pop("modes")
    task, host = Task(**given), find_hosts()[0]
    with tempfile.TemporaryDirectory() as folder:
        on_cpu = make_model(replace(task, device="cpu"))
        file = Path(pc.save_checkpoint(on_cpu, Path(folder) / "random.safetensors"))
        steps = evaluations(on_cpu, task.size)
        for mode in modes:
            form = f"server {mode}".strip() if mode else "server, default"
            row = Row(name_of(task), task.size, task.dtype, form, task.batches[0])
            try:
                measure(host, task, file, row, [*extra, *mode.split()])
                row.image = row.guided * (steps[0] + steps[1] / 2) / row.batch
            except Exception as error:  # whatever it raises is the result
                row.note = clock.describe(error)
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
