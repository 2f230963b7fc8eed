"""What a fresh clone starts from: both ways of setting up agree, and ComfyUI keeps its packages."""

import re
import shutil
import subprocess

import pytest
from helpers import ROOT


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_both_set_ups_take_the_same_torch():
    (unix,) = re.findall(r"^TORCH \?= (\S+)$", read("Makefile"), re.MULTILINE)
    (windows,) = re.findall(r'set "TORCH=(\S+)"', read("make.bat"))
    assert unix == windows == "torch==" + unix.split("==")[1]


def test_the_nodes_require_only_what_comfyui_brings():
    lines = [line for line in read("requirements.txt").splitlines() if not line.startswith("#")]
    assert lines == ["einops"]


def test_tools_are_pinned():
    for tool in ("ruff", "pytest", r"pyright\[nodejs\]"):
        assert re.search(rf'"{tool}==[\d.]+"', read("pyproject.toml")), tool
    (pinned,) = re.findall(r'"ruff==([\d.]+)"', read("pyproject.toml"))
    assert f"rev: v{pinned} " in read(".pre-commit-config.yaml")


GOLDEN = ROOT / "tests" / "golden"
KINDS = {  # what a clone alone compares with recorded data, at least
    "official/c2i": (
        "c2i_forward_",
        "c2i_sample_euler",
        "c2i_sample_flowdpm",
        "c2i_sample_heun",
        "c2i_lightning",
        "c2i_training_loss",
    ),
    "official/t2i": ("t2i_forward_", "t2i_sample_"),
    "official/tables": ("tables_rope", "tables_timesteps", "tables_postprocess", "tables_prompt"),
    "xpred": ("dit-r", "mmdit-r", "mmpixeldit-r", "preset-pixeldit", "flow-loss", "cli-", "grid-table"),
    "pixeldit2": (
        "tables",
        "encoder_",
        "forward_",
        "sample_heun_256",
        "sample_heun_512",
        "checkpoint_",
        "lora_",
        "training_loss_",
        "flowedit_",
    ),
    "pixelhdm": ("05_forward", "10_sampler_euler", "13_sampler_full_heun", "30_pipeline", "20_cfg", "33_image_io"),
    "peers": ("madtune-t2i", "bili-t2i", "comfy-t2i-fp8"),  # LoRA, a folder, quantized
}


@pytest.mark.parametrize("system, start", [(system, start) for system, starts in KINDS.items() for start in starts])
def test_golden_data_of_every_kind_comes_along(system, start):
    assert list((GOLDEN / system.split("/")[0]).glob(f"{start}*/case.json"))


def test_golden_data_stays_small():
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    assert size <= 12 * 2**20


def test_comfyui_serves_the_templates_from_workflows():
    """It takes the first of these names that exists, so no other folder may have one that comes before."""
    names = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert next(name for name in names if (ROOT / name).exists()) == "workflows"


@pytest.mark.skipif(shutil.which("comfy") is None, reason="comfy-cli is not installed")
def test_the_registry_accepts_the_pack():
    command = ["comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "passed" in output, output
