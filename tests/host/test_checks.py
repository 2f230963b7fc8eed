"""The checks of `inside/`, in every ComfyUI of this machine: one process per host, one test per check and host."""

from __future__ import annotations

import ast
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hosts import ROOT, Host, find_hosts, run_inside  # noqa: E402

INSIDE = Path(__file__).parent / "inside"
HOSTS = find_hosts()
NO_HOST = "no ComfyUI found: set COMFYUI_PATH, or put one into ~/ComfyUI (with its environment in .venv)"
pytestmark = pytest.mark.host


def names() -> list[str]:
    """Every check by its name, without importing it (that needs a host)."""
    found = ["pack.check_loads"]
    for path in sorted(INSIDE.glob("checks_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [entry.name for entry in tree.body if isinstance(entry, ast.FunctionDef)]
        found += [f"{path.stem}.{name}" for name in functions if name.startswith("check_")]
    return found


@functools.cache
def report(host: Host) -> dict[str, Any]:
    """Run all checks in a host once: by name, the error (None for a pass) and why a check was skipped."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_inside(host, INSIDE / "runner.py", str(ROOT), folder)
        path = Path(folder) / "report.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        results = {line["name"]: line for line in map(json.loads, lines)}
    results["log"] = (done.stdout + done.stderr)[-4000:]
    return results


@pytest.mark.skipif(not HOSTS, reason=NO_HOST)
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_inside_comfyui(host: Host, name: str) -> None:
    results = report(host)
    assert name in results, f"the host ended before this check:\n{results['log']}"
    if results[name]["skipped"]:
        pytest.skip(results[name]["skipped"])
    assert results[name]["error"] is None, results[name]["error"]


def test_hosts_are_named_when_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert find_hosts() == []
