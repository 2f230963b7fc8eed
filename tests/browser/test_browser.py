"""The bundled workflows in ComfyUI's real web page, driven in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.comfyui import ROOT, find_hosts
from host.server import PACK, TITLES, Server, running, titles

HOSTS = find_hosts()
DRIVE = Path(__file__).parent / "drive.js"

# templates that need no download, with the name and number of the pictures that they save
RUNS = {
    "PixelDiT Quickstart": ("quickstart", 12),
    "PixelDiT Inpaint": ("inpaint", 6),
    "PixelDiT MNIST digits": ("digits", 12),  # ten digits and two animations
}


def _chromium() -> str | None:
    given = os.environ.get("CHROMIUM")
    return given or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _playwright() -> str | None:
    """A node_modules folder with playwright-core: NODE_PATH, or one in the home folder."""
    candidates = [*os.environ.get("NODE_PATH", "").split(os.pathsep), *map(str, Path.home().glob("*/node_modules"))]
    return next((path for path in candidates if path and (Path(path) / "playwright-core").is_dir()), None)


MISSING = [
    what
    for what, there in (
        ("ComfyUI (COMFYUI_PATH or ~/ComfyUI)", HOSTS),
        ("node", shutil.which("node")),
        ("Chromium (CHROMIUM)", _chromium()),
        ("playwright-core (NODE_PATH)", _playwright()),
    )
    if not there
]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"not found: {', '.join(MISSING)}")]


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("comfyui") / "base") as running_server:
        yield running_server


def drive(server: Server, title: str, out: Path, mode: str) -> dict:
    environment = dict(os.environ, NODE_PATH=_playwright() or "", CHROMIUM=_chromium() or "")
    done = subprocess.run(
        ["node", str(DRIVE), server.url, PACK, title, str(out), mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected_widgets(server: Server, node: dict) -> dict:
    """Names of a node's widgets, in order, with the values that the workflow file has for them."""
    info = server.get(f"/object_info/{node['type']}")[node["type"]]
    names = []
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            if options.get("forceInput"):
                continue
            if isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                names.append(name)
                if options.get("control_after_generate") or name == "seed":  # the page adds one of its own to each seed
                    names.append("control_after_generate")
                if options.get("image_upload"):
                    names.append("upload")  # the page's own button
    return dict(zip(names, node["widgets_values"], strict=True))


@pytest.mark.parametrize("title", TITLES)
def test_a_workflow_opens_as_meant(server: Server, title: str, tmp_path: Path) -> None:
    if title not in titles(server):
        pytest.skip("this ComfyUI has another generation of the training nodes")
    found = drive(server, title, tmp_path, "run" if title in RUNS else "open")
    graph = json.loads((ROOT / "workflows" / f"{title}.json").read_text(encoding="utf-8"))
    ours = [error for error in found["errors"] if PACK in error]  # old pages stumble over settings of their own
    assert not ours and not found["alerts"], (ours, found["alerts"])
    assert not [node["type"] for node in found["nodes"] if node["missing"]]
    assert found["thumbnail"] == 200
    assert len(found["nodes"]) == len(graph["nodes"])
    for node, shown in zip(graph["nodes"], found["nodes"], strict=True):
        assert shown["type"] == node["type"]
        if node["type"] not in ("MarkdownNote", "PixelDiTDecode"):
            widgets = {name: value for name, value in shown["widgets"].items() if not name.startswith("$")}
            expected = expected_widgets(server, node)
            assert {name: widgets.get(name) for name in expected} == expected, node["type"]
    if "run" in found:
        assert found["run"]["status"] == "success", found["run"]
        saved = [image["filename"] for output in found["run"]["outputs"].values() for image in output["images"]]
        name, count = RUNS[title]
        assert len(saved) == count
        assert len(list((server.base / "output" / "PixelDiT").glob(f"{name}*.*"))) == count


def test_the_class_list_follows_the_checkpoint(server: Server, tmp_path: Path) -> None:
    bundled = drive(server, "PixelDiT with KSampler", tmp_path, "open")["classes"]
    assert bundled == {"value": "0: hot-air balloon", "count": 12, "last": "11: umbrella"}
