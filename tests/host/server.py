"""A real ComfyUI server with the pack in its custom_nodes, and prompts for it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from host.comfyui import ROOT, Host

BUNDLED = "pixeldit-emoji-96.safetensors"
PACK = "ComfyUI-PixelDiT"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
TITLES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
# templates for one generation of ComfyUI's training nodes each, and a node with an input that only this one has; those
# between (0.3.67 to 0.18) have none
FORMS = {
    "PixelDiT Train LoRA": ("TrainLoraNode", "quantized_backward"),
    "PixelDiT Train LoRA (older ComfyUI)": ("SaveLoRANode", "lora"),
}


class Server:
    """Address, folders and log of a running ComfyUI."""

    def __init__(self, host: Host, port: int, base: Path) -> None:
        self.host, self.url, self.base = host, f"http://127.0.0.1:{port}", base

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def post(self, path: str, value: Any) -> tuple[int, Any]:
        """Status and answer; an error status is an answer, too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
                return answer.status, json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def run(self, prompt: dict[str, Any], timeout: float = 240) -> dict[str, Any]:
        """Queue a prompt in API form and wait for its history entry; a refused one gives its errors.

        In the name of a client, as a page does: some versions report nothing of cached nodes to others.
        """
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": "tests"})
        if status != 200:
            return {"refused": answer}
        return self.wait(answer["prompt_id"], timeout)

    def wait(self, prompt_id: str, timeout: float = 240) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            time.sleep(0.2)
        raise TimeoutError(f"prompt {prompt_id} did not end:\n{self.log[-3000:]}")


def titles(server: Server) -> list[str]:
    """The templates that are for this ComfyUI."""
    known = {name: list(chain(*info["input"].values())) for name, info in server.get("/object_info").items()}
    return [title for title in TITLES if title not in FORMS or FORMS[title][1] in known.get(FORMS[title][0], ())]


def reports_cached_nodes(server: Server) -> bool:
    """Whether this ComfyUI sends again what a node shows whose result is cached: 0.3.64 did, 0.19 and newer do."""
    loader = server.get("/object_info/PixelDiTLoader")["PixelDiTLoader"]
    return "has_intermediate_output" in loader or "caches.ui" in (server.host.path / "execution.py").read_text("utf-8")


@contextlib.contextmanager
def running(host: Host, base: Path, packs: dict[str, Path] | None = None, *options: str) -> Iterator[Server]:
    """Start a host with the pack linked into its custom_nodes, and stop it.

    Args:
        packs: folders by their name in custom_nodes, where other ones than this pack alone.
        options: of ComfyUI's command line.
    """
    (base / "custom_nodes").mkdir(parents=True)
    for folder in ("models/diffusion_models", "output", "input", "user", "temp"):
        (base / folder).mkdir(parents=True)
    for name, folder in (packs or {PACK: ROOT}).items():
        os.symlink(folder, base / "custom_nodes" / name, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(host.python), "main.py", "--cpu", "--disable-api-nodes", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--preview-method", "latent2rgb"]
    command += options
    with (base / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            cwd=host.path,
            env={"OMP_NUM_THREADS": "1"} | os.environ,  # as in comfyui.run_pytest
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        server = Server(host, port, base)
        try:
            _wait_until_up(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_up(server: Server, process: subprocess.Popen) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError):
            server.get("/system_stats")
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    raise RuntimeError(f"ComfyUI did not start:\n{server.log[-3000:]}")


def prompt(checkpoint: str = BUNDLED, label: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Loader, label, sampler and save, in the form of ComfyUI's API."""
    values = {
        "seed": 1,
        "settings": "custom",
        "steps": 4,
        "solver": "ab2",
        "cfg": 2.0,
        "timeshift": 0.0,
        "cfg_interval_start": 0.1,
        "cfg_interval_end": 0.9,
        "width": 96,
        "height": 96,
        "batch_size": 1,
        "denoise": 1.0,
        **settings,
    }
    return {
        "1": {
            "class_type": "PixelDiTLoader",
            "inputs": {"checkpoint": checkpoint, "weights": "auto", "weight_dtype": "default"},
        },
        "2": {
            "class_type": "PixelDiTClassLabel",
            "inputs": {"model": ["1", 0], "class_name": "108: fox", "classes": "", **(label or {})},
        },
        "3": {
            "class_type": "PixelDiTSampler",
            "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 1], **values},
        },
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "PixelDiT/test"}},
    }


def as_prompt(server: Server, graph: dict[str, Any]) -> dict[str, Any]:
    """What the page sends of a graph."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    nodes = {}
    for node in graph["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values, inputs = iter(node["widgets_values"]), {}
        info = server.get(f"/object_info/{node['type']}")[node["type"]]["input"]
        for name, spec in {**info["required"], **info.get("optional", {})}.items():
            options = spec[1] if len(spec) > 1 else {}
            if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not options.get("forceInput"):
                inputs[name] = next(values)
                if name == "seed" or options.get("control_after_generate"):
                    next(values)  # the page's own widget
        assert not list(values), node["type"]
        inputs |= {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        nodes[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return nodes


def error_of(entry: dict[str, Any]) -> str:
    for kind, message in entry["status"]["messages"]:
        if kind == "execution_error":
            return message["exception_message"]
    return ""
