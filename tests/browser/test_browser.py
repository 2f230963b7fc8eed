"""ComfyUI's real web pages, driven in Chromium: each host's own one and, with `COMFYUI_FRONTEND`, newer ones, in both
ways of drawing nodes."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from host.comfyui import ROOT, Host, find_hosts
from host.server import PACK, TITLES, Server, running, titles

HOSTS = find_hosts()
DRIVE = Path(__file__).parent / "drive.js"

# templates that need no download, with the name and number of the pictures that they save
RUNS = {
    "PixelDiT Quickstart": ("quickstart", 12),
    "PixelDiT Inpaint": ("inpaint", 6),
    "PixelDiT mix two classes": ("mix", 12),
    "PixelDiT MNIST digits": ("digits", 12),  # ten digits and two animations
}
RELOADED = "PixelDiT Quickstart"
# long texts that nodes show, for templates that are not run
TEXTS = {
    "PixelDiTLoader": "PixelDiT, text-to-image, text of 300 tokens, 2304 wide, 14 + 2 blocks of 1536, patch 16\n"
    "at 512 x 512: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 3, interval 0 to 1\n"
    "at 1024 x 1024: 50 steps flow_dpmpp_2m, cfg 2.75, timeshift 4, interval 0 to 1\n"
    "layout canonical, raw weights, bfloat16, 2,615 MB in memory",
    "PixelDiTClassLabel": "108: fox, 201: raccoon, 179: panda, 188: penguin, 111: frog, 232: snail, 243: strawberry, "
    "90: doughnut and 4 more (of 294 classes)",
    "PixelDiTTextPrompt": "prompt: it has 312 tokens, the model reads the first 299; not read: some soft light",
    "PixelDiTSampler": "100 steps flow_dpmpp_2m, cfg 2.75, timeshift 4, interval 0.1 to 0.9, 1024 x 1024\n"
    "note: these settings are for 512 x 512",
    "PixelDiTEncode": "note: the image has an alpha channel, which is dropped",
    "PixelDiTSize": "1024 x 1024",
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


@dataclass(frozen=True)
class FrontEnd:
    """A host with one of its pages: its own, or the one in a folder (`--front-end-root`)."""

    host: Host
    root: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.host.name}, {self.root.parents[1].name}" if self.root else self.host.name

    @property
    def options(self) -> list[str]:
        return ["--front-end-root", str(self.root)] if self.root else []


def _front_ends() -> list[FrontEnd]:
    """Every host's own; each folder of COMFYUI_FRONTEND (`static` of comfyui-frontend-package) on the newest host."""
    roots = [Path(entry) for entry in os.environ.get("COMFYUI_FRONTEND", "").split(os.pathsep) if entry]
    newest = max(HOSTS, key=lambda host: [*map(int, host.name.split("."))], default=None)
    return [*map(FrontEnd, HOSTS), *(FrontEnd(newest, root) for root in roots if newest and root.is_dir())]


class Page:
    """A server and how its page draws nodes."""

    def __init__(self, server: Server, nodes2: bool, out: Path) -> None:
        self.server, self.nodes2, self.out = server, nodes2, out

    @functools.cache  # noqa: B019 - as long as the page
    def drive(self, kind: str) -> dict:
        task = {"kind": kind, "runs": list(RUNS), "texts": TEXTS, "title": "PixelDiT with KSampler"}
        task["titles"] = sorted(titles(self.server), key=lambda title: title == RELOADED)
        self.server.post("/settings/Comfy.VueNodes.Enabled", self.nodes2)
        environment = dict(os.environ, NODE_PATH=_playwright() or "", CHROMIUM=_chromium() or "")
        done = subprocess.run(
            ["node", str(DRIVE), self.server.url, PACK, str(self.out), json.dumps(task)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=580,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        seen = json.loads(done.stdout.splitlines()[-1])
        ours = [error for error in seen["errors"] if PACK in error]  # old pages stumble over settings of their own
        assert not ours, ours
        return seen["found"]


@pytest.fixture(scope="module", params=_front_ends(), ids=lambda front_end: front_end.name)
def running_page(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Host]]:
    base = tmp_path_factory.mktemp("comfyui") / "base"
    with running(request.param.host, base, None, *request.param.options) as server:
        yield server, request.param.host


@pytest.fixture(scope="module", params=[False, True], ids=["LiteGraph", "Nodes 2.0"])
def page(
    running_page: tuple[Server, Host], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Page:
    server, host = running_page
    if request.param and host.name.startswith("0.3."):
        pytest.skip("its Nodes 2.0 are an experiment that shows no page elements: no text fields, notes or images")
    return Page(server, request.param, tmp_path_factory.mktemp("screenshots"))


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
                control = options.get("control_after_generate") or name == "seed"
                if control:  # the page adds one of its own to each seed, and some pages take a default for its name
                    names.append(control if isinstance(control, str) else "control_after_generate")
                if options.get("image_upload"):
                    names.append("upload")  # the page's own button
    return dict(zip(names, node["widgets_values"], strict=True))


def graph_of(title: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{title}.json").read_text(encoding="utf-8"))


def found_in(page: Page, title: str) -> dict:
    if title not in titles(page.server):
        pytest.skip("this ComfyUI has another generation of the training nodes")
    return page.drive("templates")["titles"][title]


@pytest.mark.parametrize("title", TITLES)
def test_a_workflow_opens_as_meant(page: Page, title: str) -> None:
    found, graph = found_in(page, title), graph_of(title)
    assert not found["alerts"], found["alerts"]
    assert not [node["type"] for node in found["nodes"] if node["missing"]]
    assert found["thumbnail"] == 200
    assert len(found["nodes"]) == len(graph["nodes"])
    for node, shown in zip(graph["nodes"], found["nodes"], strict=True):
        assert shown["type"] == node["type"]
        if node["type"] not in ("MarkdownNote", "PixelDiTDecode"):
            widgets = {name: value for name, value in shown["widgets"].items() if not name.startswith("$")}
            expected = expected_widgets(page.server, node)
            assert {name: widgets.get(name) for name in expected} == expected, node["type"]


@pytest.mark.parametrize("title", RUNS)
def test_a_workflow_runs(page: Page, title: str) -> None:
    run = found_in(page, title)["run"]
    assert run["status"] == "success", run
    saved = [image["filename"] for output in run["outputs"].values() for image in output.get("images", ())]
    name, count = RUNS[title]
    assert len(saved) == count
    assert {path.name for path in (page.server.base / "output" / "PixelDiT").glob(f"{name}*.*")} >= set(saved)


@pytest.mark.parametrize("title", TITLES)
def test_nodes_have_room(page: Page, title: str) -> None:
    """No node covers another one, with the texts that they show after a run."""
    found = found_in(page, title)
    for nodes in (found["nodes"], found["after"]):
        for one, other in combinations(nodes, 2):
            left, top = (max(one["box"][side], other["box"][side]) for side in (0, 1))
            right, bottom = (min(one["box"][side], other["box"][side]) for side in (2, 3))
            assert right <= left or bottom <= top, (one["type"], one["box"], other["type"], other["box"])


@pytest.mark.parametrize("title", TITLES)
def test_texts_are_shown_whole(page: Page, title: str) -> None:
    ours = [node for node in found_in(page, title)["after"] if node["type"] in TEXTS]
    assert len({node["type"] for node in ours if node["text"]}) >= 2
    for node in ours:
        if node["text"]:
            assert node["drawn"] and not node["cut"], node


def test_texts_stay(page: Page) -> None:
    found = page.drive("templates")
    assert not any(node["text"] for node in found["bare"]), "another workflow"
    for nodes in (found["titles"][RELOADED]["after"], found["reloaded"], found["cached"]):
        texts = {node["type"]: node["text"] for node in nodes}
        assert texts["PixelDiTSampler"] == "20 steps ab2, cfg 2, timeshift 1, interval 0 to 0.7, 96 x 96"
        assert "294 classes" in texts["PixelDiTLoader"] and "(of 294 classes)" in texts["PixelDiTClassLabel"]
        assert texts["SaveImage"] is None
    for where in ("workflow", "prompt"):
        assert "pixeldit_text" not in found[where] and "steps ab2" not in found[where], where


def test_texts_of_subgraphs_and_texts_that_go(page: Page) -> None:
    found = page.drive("templates")
    assert found["inside"] == found["again"] == ["of a subgraph", None]


EMOJI = {"value": "0: Christmas tree", "count": 294, "last": "293: zebra"}
DIGITS = {"value": "0: 0", "count": 10, "last": "9: 9"}


def test_the_class_list_follows_the_checkpoint(page: Page) -> None:
    found = page.drive("lists")
    assert len(found) >= 14
    for case, seen in found.items():
        expected = DIGITS if "digits" in case else EMOJI
        ends = [expected["value"], expected["last"]]
        assert seen.pop("offered", ends) == ends, case
        assert seen == (expected | {"value": "108: fox"} if case == "plain" else expected), case  # as in the template
