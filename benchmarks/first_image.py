"""From Run to the first preview and the saved image, on a server that was just started.

    export PYTHONPATH=tests
    python benchmarks/first_image.py                          the bundled model, in the first ComfyUI that is found
    python benchmarks/first_image.py ../ComfyUI --model bundled PixelDiT-XL PixelDiT-T2I --starts 3

Each row is from a server of its own, on the CPU, with the pack and the folder `stopwatch` in its custom_nodes. Times
are seconds since the prompt was sent. `--calls` prints what the server did on the way, and each time that it opened the
file. Models other than the bundled one have random weights, in bfloat16. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from host.comfyui import Host, find_hosts
from host.server import BUNDLED, PACK, ROOT, Server, prompt, running
from step import build

import pixeldit_core as pc

BUNDLED_MODEL = "bundled"
STEPS = 2
SIDE = 256  # of the images; that of the bundled model's is 96
STAGES = ("loader", "condition", "sampler", "first step", "first preview", "save", "saved")


def write_file(model: str, folder: Path) -> str:
    """Name of the file of weights in a folder of ComfyUI."""
    if model == BUNDLED_MODEL:
        return BUNDLED
    return pc.save_checkpoint(build(model, "cpu", torch.bfloat16), folder / f"{model}.safetensors").name


def make_prompt(model: str, file: str) -> dict[str, Any]:
    """The quickstart's nodes; for a text model, states of the right shape in the place of an encoder's."""
    size = 96 if model == BUNDLED_MODEL else SIDE
    graph = prompt(file, steps=STEPS, width=size, height=size, cfg=3.0, cfg_interval_start=0.0, cfg_interval_end=1.0)
    made = pc.build_model(pc.VARIANTS[model].family, model, device="meta") if model != BUNDLED_MODEL else None
    if made and made.family.condition != "class":
        params = made.params
        text = {"tokens": params.txt_max_length, "width": params.txt_embed_dim}
        graph["2"] = {"class_type": "RandomText", "inputs": {"seed": 0, **text}}
        graph["5"] = {"class_type": "RandomText", "inputs": {"seed": 1, **text}}
        graph["3"]["inputs"] |= {"positive": ["2", 0], "negative": ["5", 0]}
    elif made:
        graph["2"]["inputs"]["class_name"] = "207"
    return graph


async def listen(server: Server, graph: dict[str, Any]) -> dict[str, float]:
    """Sends a prompt as a page does, and waits for its end: when each stage began, in seconds since it was sent."""
    import aiohttp  # of ComfyUI's environment, which runs this

    stages: dict[str, float] = {}
    names = {"1": "loader", "2": "condition", "5": "condition", "3": "sampler", "4": "save"}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=first") as socket:
        begin = time.monotonic()
        answer = await session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": "first"})
        if answer.status != 200:
            raise SystemExit(await answer.text())
        async for message in socket:
            now = time.monotonic() - begin
            if message.type == aiohttp.WSMsgType.BINARY:
                stages.setdefault("first preview", now)
                continue
            event = json.loads(message.data)
            if event["type"] == "execution_error":
                raise SystemExit(event["data"]["exception_message"])
            if event["type"] == "executing" and event["data"]["node"] is None:
                stages["saved"] = now
                return {"posted": begin, **stages}
            if event["type"] == "executing":
                stages.setdefault(names.get(event["data"]["node"], "other"), now)
            elif event["type"] == "progress" and event["data"]["value"] > 0:
                stages.setdefault("first step", now)
    raise SystemExit("the server closed the connection.")


def measure(host: Host, model: str, file: str, weights: Path) -> tuple[dict[str, float], list[dict]]:
    """Stages of one prompt on a new server, and the calls that it made on the way."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "stopwatch.jsonl"
        os.environ["STOPWATCH"] = str(records)
        packs = {PACK: ROOT, "stopwatch": ROOT / "benchmarks" / "stopwatch"}
        paths = Path(folder) / "paths.yaml"
        paths.write_text(f"weights:\n    diffusion_models: {weights}\n", encoding="utf-8")
        with running(host, Path(folder) / "base", packs, "--extra-model-paths-config", str(paths)) as server:
            stages = asyncio.run(listen(server, make_prompt(model, file)))
        calls = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    return stages, calls


def show_calls(calls: list[dict], posted: float) -> None:
    for call in sorted(calls, key=lambda call: (call["begin"], -call["end"])):
        what = " ".join(str(value) for key, value in call.items() if key not in ("name", "begin", "end", "depth"))
        begin, length = call["begin"] - posted, call["end"] - call["begin"]
        sys.stdout.write(f"{begin:8.3f} {length:8.3f}  {'    ' * call['depth']}{call['name']} {what}\n")


def run_with(host: Host) -> int:
    """The same command again, with ComfyUI's Python, which has what a page's connection needs."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    command = [str(host.python), str(Path(__file__).resolve()), "--inside", *sys.argv[1:]]
    return subprocess.run(command, env=dict(os.environ, PYTHONPATH=path)).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", nargs="?", help="the folder of a ComfyUI (default: the first found)")
    models = [BUNDLED_MODEL, *pc.VARIANTS]
    parser.add_argument("--model", nargs="+", default=[BUNDLED_MODEL], choices=models, metavar="MODEL")
    parser.add_argument("--starts", type=int, default=1, help="servers for each model (default: 1)")
    parser.add_argument("--calls", action="store_true", help="what the server did, with the time that it took")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        os.environ["COMFYUI_PATH"] = str(Path(options.host).resolve())
    host = next(iter(find_hosts()), None)
    if host is None:
        raise SystemExit("no ComfyUI found: pass its folder, or set COMFYUI_PATH (and COMFYUI_PYTHON).")
    if not options.inside:
        raise SystemExit(run_with(host))
    sys.stdout.write(f"ComfyUI {host.name}, torch {torch.__version__}, {STEPS} steps\n\n")
    sys.stdout.write(f"| model | server ready | {' | '.join(STAGES)} |\n|{'---|' * (len(STAGES) + 2)}\n")
    with tempfile.TemporaryDirectory() as folder:
        for model in options.model:
            file = write_file(model, Path(folder))
            for _ in range(options.starts):
                stages, calls = measure(host, model, file, Path(folder))
                took = next(call["end"] - call["begin"] for call in calls if call["name"] == "server ready")
                times = [f"{stages[stage]:.3f}" if stage in stages else "" for stage in STAGES]
                sys.stdout.write(f"| {' | '.join([model, f'{took:.1f}', *times])} |\n")
                if options.calls:
                    show_calls(calls, stages["posted"])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
