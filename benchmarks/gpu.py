"""What a GPU makes of it: one table of eager and compiled networks, another implementation, and ComfyUI.

    make bench-gpu                                          or: PYTHONPATH=tests python benchmarks/gpu.py
    make bench-gpu ARGS="--quick"                           within about eight minutes
    make bench-gpu ARGS="--host ~/ComfyUI"                  and text to image in this ComfyUI, and its memory modes
    make bench-gpu ARGS="--against MODULE:FACTORY --against-path FOLDER"
    make bench-gpu ARGS="--device cpu --preset tiny"        a try of everything, without a GPU

A *step* is a call of the network for images with guidance: two rows for each image. Per image: the steps of the
published settings, those outside of the guidance interval with one row. The fraction is the step's rate of operations
over that of a plain matrix product, measured by turns with it; of fp8 weights, a bfloat16 product. Peak memory is what
a step needs beyond the weights; for servers, all that the GPU holds. The estimate is
ComfyUI's for the same call. Times are medians, between events on the GPU, all of a network and size by turns.

FACTORY() returns the other network, called as (x [B, 3, H, W], time [B], class [B]); FOLDER is where MODULE is found.
A row that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from host.comfyui import Host, find_hosts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LOG = ROOT / "output" / "bench-gpu.log"
QUICK = 480  # seconds
COLUMNS = ("network", "size", "dtype", "form", "batch", "step", "image", "images/s", "fraction", "peak", "estimate")
WIDTHS = (18, 6, 6, 28, 6, 11, 10, 10, 9, 11, 11)


@dataclass
class Group:
    """Rows that one process measures."""

    script: str
    task: dict[str, Any]
    python: str = sys.executable
    path: tuple[Path, ...] = ()
    cwd: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.script} {self.task['network']} {self.task['size']} {self.task['dtype']}"


def groups(options: argparse.Namespace, host: Host | None) -> list[Group]:
    """All that is measured, the most wanted first."""
    tiny, quick = options.preset == "tiny", options.quick
    common = {"device": options.device, "tiny": tiny, "rounds": 5 if quick else 15, "product": 256 if tiny else 8192}
    dtype = "fp32" if tiny else "bf16"
    batches = [1, 2] if tiny else options.batch
    small, large = (32, 64) if tiny else (512, 1024)
    found = []
    others = {"against": options.against} if options.against else {}
    paths = tuple(map(Path, options.against_path))
    for network, size in (("class", 32 if tiny else 256), ("text", large), ("text", small)):
        task = {"network": network, "size": size, "dtype": dtype, "batches": batches, **common}
        task["compile"] = options.compile and not (quick and network == "text" and size == small)
        found.append(Group("gpu_rows", {**task, **(others if network == "class" else {})}, path=paths))
    if host is not None:
        inside = {"python": str(host.python), "cwd": host.path, "path": (host.path,)}
        weights = ["fp32" if tiny else "bf16", "fp8"]
        for size in (large, small):
            task = {"network": "text", "size": size, "dtype": dtype, "weights": weights, **common}
            task["batches"] = batches[:2] if quick else batches
            found.append(Group("gpu_comfy", task, **inside, environment={"HF_HUB_OFFLINE": "1"}))
        modes = ["", "--lowvram", "--gpu-only", "--fp16-intermediates"]
        task = {"network": "class", "size": 32 if tiny else 256, "dtype": dtype, "batches": batches[:1], **common}
        task |= {"modes": modes, "options": options.server_options.split() + ["--cpu"] * (options.device == "cpu")}
        found.append(Group("gpu_modes", task, environment={"COMFYUI_PATH": str(host.path)}))
    return [group for group in found if not options.only or any(word in group.title for word in options.only)]


def run(group: Group, limit: float) -> Iterator[dict[str, Any]]:
    """The rows of a group as they come; one that says why where there are none, or no more."""
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(map(str, (*group.path, ROOT, ROOT / "tests", *filter(None, own))))
    command = [group.python, str(HERE / f"{group.script}.py"), json.dumps(group.task)]
    environment = {**os.environ, "PYTHONPATH": path, **group.environment}
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n== {group.title}\n")
        log.flush()
        process = subprocess.Popen(
            command, cwd=group.cwd or ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        timer = threading.Timer(limit, process.kill)
        timer.start()
        assert process.stdout is not None
        begin = time.monotonic()
        for line in process.stdout:
            try:
                yield json.loads(line)
            except ValueError:
                log.write(line)  # of a package that prints
        timer.cancel()
        if process.wait():
            late = time.monotonic() - begin >= limit - 1
            reason = f"stopped after {limit:.0f} s" if late else f"ended with {process.returncode}"
            yield {"form": group.script, **group.task, "note": f"{reason}: {LOG} has its messages"}


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""

    def number(name: str, text: str, scale: float = 1.0) -> str:
        value = row.get(name)
        return "" if value is None else text.format(value * scale)

    rate = {"rate": 1 / row["image"]} if row.get("image") else {}
    return [
        str(row["network"]),
        str(row["size"]),
        str(row["dtype"]),
        str(row["form"]),
        str(row.get("batch", "")),
        number("guided", "{:.2f} ms", 1000),
        number("image", "{:.3f} s"),
        f"{rate['rate']:.2f}" if rate else "",
        number("fraction", "{:.2f}"),
        number("peak", "{:,.0f} MiB"),
        number("estimate", "{:,.0f} MiB"),
    ]


def line(values: list[str]) -> str:
    """Names to the left, numbers to the right."""
    cells = [
        value.ljust(w) if i in (0, 3) else value.rjust(w)
        for i, (value, w) in enumerate(zip(values, WIDTHS, strict=True))
    ]
    return "  ".join(cells).rstrip()


def describe_machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, which says nothing about a GPU"
    return f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--preset", default="published", choices=["published", "tiny"], help="tiny: to try it")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16], help="images (default: 1 4 16)")
    parser.add_argument("--quick", action="store_true", help=f"fewer rounds; no group starts after {QUICK} s")
    parser.add_argument("--host", help='the folder of a ComfyUI, or "none" (default: the first found)')
    parser.add_argument("--server-options", default="", help="more options of ComfyUI's servers, in one string")
    parser.add_argument("--against", default="", metavar="MODULE:FACTORY", help="another class-conditional network")
    parser.add_argument("--against-path", nargs="+", default=[], metavar="FOLDER", help="where its modules are")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave compiled rows out")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="groups with such a word: gpu_rows, class, 1024 ...")
    parser.add_argument("--json", type=Path, default=ROOT / "output" / "bench-gpu.json", help="file of all numbers")
    return parser.parse_args()


def choose_host(folder: str | None) -> Host | None:
    if folder and folder != "none":
        os.environ["COMFYUI_PATH"] = str(Path(folder).expanduser().resolve())
    hosts = [] if folder == "none" else find_hosts()
    if folder and folder != "none" and not hosts:
        raise SystemExit(f"{folder} is no ComfyUI with an environment: pass its folder, and set COMFYUI_PYTHON.")
    return hosts[0] if hosts else None


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here. To try everything on the CPU: --device cpu --preset tiny")
    host = choose_host(options.host)
    machine = describe_machine(options.device)
    inside = f"ComfyUI {host.name}" if host else "no ComfyUI: its rows are left out (--host FOLDER)"
    sys.stdout.write(f"{machine}; {inside}\n\n{line(list(COLUMNS))}\n")
    begin, rows = time.monotonic(), []
    for group in groups(options, host):
        left = (QUICK if options.quick else 3600) - (time.monotonic() - begin)
        found = run(group, left) if left > 10 else [{**group.task, "form": group.script, "note": "left out: no time"}]
        for row in found:
            rows.append(row)
            note = f"  {row['note']}" if row.get("note") else ""
            sys.stdout.write(f"{line(cells(row))}{note}\n")
            sys.stdout.flush()
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps({"machine": machine, "host": inside, "rows": rows}, indent=1), "utf-8")
    sys.stdout.write(f"\n{time.monotonic() - begin:.0f} s; all numbers: {options.json}\n")


if __name__ == "__main__":
    main()
