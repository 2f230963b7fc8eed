"""The tests of `inside/`, in every ComfyUI of this machine: one process per ComfyUI, one test here for each there."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host.comfyui import NO_HOST, ROOT, Host, find_hosts, run_pytest

INSIDE = Path(__file__).parent / "inside"
HOSTS = find_hosts()
Report = Callable[[Host], dict[str, Any]]


def names() -> list[str]:
    """Every test by its name, without importing it (that needs ComfyUI)."""
    found = []
    for path in sorted(INSIDE.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [entry.name for entry in tree.body if isinstance(entry, ast.FunctionDef)]
        found += [f"{path.stem}.{name}" for name in functions if name.startswith("test_")]
    return found


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A host -> its results by the name of a test, and its output: of one run of all tests that were asked for."""
    results: dict[Host, dict[str, Any]] = {}

    def run(host: Host) -> dict[str, Any]:
        if host not in results:
            results[host] = run_tests(host, wanted(request.session.items, host), tmp_path_factory.mktemp("comfyui"))
        return results[host]

    return run


def wanted(items: list[pytest.Item], host: Host) -> list[str]:
    calls = [item.callspec.params for item in items if hasattr(item, "callspec")]
    return [call["name"] for call in calls if call.get("host") == host and "name" in call]


def run_tests(host: Host, tests: list[str], folder: Path) -> dict[str, Any]:
    """Results of a process in which ComfyUI runs: outcome and reason by name, and the end of its "output"."""
    path = folder / "report.jsonl"
    nodes = [f"{INSIDE / module}.py::{function}" for module, _, function in (test.partition(".") for test in tests)]
    options = [f"--pack={ROOT}", f"--out={folder / 'base'}", f"--report={path}"]
    (folder / "pytest").mkdir()
    done = run_pytest(host, folder / "pytest", *options, *nodes)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line["test"]: line for line in map(json.loads, lines)} | {"output": (done.stdout + done.stderr)[-4000:]}


@pytest.mark.skipif(not HOSTS, reason=NO_HOST)
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_inside_comfyui(host: Host, name: str, report: Report) -> None:
    results = report(host)
    assert name in results, f"ComfyUI ended before this test:\n{results['output']}"
    if results[name]["outcome"] == "skipped":
        pytest.skip(results[name]["reason"])
    assert results[name]["outcome"] == "passed", results[name]["reason"]


def test_hosts_are_named_when_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert find_hosts() == []
