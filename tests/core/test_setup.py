"""What a fresh clone starts from: the two ways to set up agree, and the host's packages stay its own."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_both_set_ups_take_the_same_torch():
    (unix,) = re.findall(r"^TORCH \?= (\S+)$", read("Makefile"), re.MULTILINE)
    (windows,) = re.findall(r'set "TORCH=(\S+)"', read("make.bat"))
    assert unix == windows == "torch==" + unix.split("==")[1]


def test_the_nodes_ask_comfyui_for_nothing():
    lines = [line for line in read("requirements.txt").splitlines() if not line.startswith("#")]
    assert not any(lines)


def test_tools_are_pinned():
    assert re.search(r"^ruff==[\d.]+$", read("requirements-dev.txt"), re.MULTILINE)
    assert re.search(r"^pytest==[\d.]+$", read("requirements-dev.txt"), re.MULTILINE)


def test_golden_data_stays_small():
    size = sum(path.stat().st_size for path in (ROOT / "tests" / "golden").rglob("*") if path.is_file())
    assert size <= 6 * 2**20
