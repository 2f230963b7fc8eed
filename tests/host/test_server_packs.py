"""A server with this pack twice in custom_nodes, and with another pack that has a node of the same id."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from host.comfyui import NO_HOST, ROOT, Host, find_hosts
from host.server import PACK, error_of, prompt, running

HOSTS = find_hosts()
OTHER = Path(__file__).parent / "other_pack"
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not HOSTS, reason=NO_HOST),
    pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name),
]


@pytest.mark.parametrize("names", [(PACK, "pixeldit old (1)"), (PACK, f"{PACK}-main", "a-backup")])
def test_copies_of_the_pack(host: Host, tmp_path: Path, names: tuple[str, ...]) -> None:
    """One of them a copy, as of a ZIP beside a clone; others are links."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "benchmarks")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out)
    with running(host, tmp_path / "base", dict.fromkeys(names, ROOT) | {names[-1]: copy}) as server:
        entry = server.run(prompt())
        assert entry["status"]["status_str"] == "success", error_of(entry)
        lines = [line for line in server.log.splitlines() if "ComfyUI-PixelDiT is there twice" in line]
        assert len(lines) == len(names) - 1
        for name in names:
            assert any(str(tmp_path / "base" / "custom_nodes" / name) in line for line in lines)
        assert "already registered" not in server.log


@pytest.mark.parametrize("other", ["a-pack", "z-pack", "a_file.py"])
def test_another_pack_with_our_sampler(host: Host, tmp_path: Path, other: str) -> None:
    path = OTHER / "__init__.py" if other.endswith(".py") else OTHER
    with running(host, tmp_path / "base", {PACK: ROOT, other: path}) as server:
        lines = [line for line in server.log.splitlines() if "Two packs have a node" in line]
        assert len(lines) == 1 and "PixelDiTSampler" in lines[0], server.log[-3000:]
        is_ours = "pipe" not in server.get("/object_info/PixelDiTSampler")["PixelDiTSampler"]["input"]["required"]
        used, not_used = (PACK, other) if is_ours else (other, PACK)
        folder = tmp_path / "base" / "custom_nodes"
        assert f"that of {folder / used} is used, that of {folder / not_used} is not" in lines[0]
