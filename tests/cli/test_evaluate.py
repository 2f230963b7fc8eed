"""The command `evaluate`: its help, and what it needs installed."""

import subprocess
import sys

import pytest
from evaluation.extractors import draw, write
from helpers import ROOT

from pixeldit_core.cli import main

EXTRAS = ("accelerate", "torch_fidelity", "torchvision", "matplotlib", "scipy", "peft", "transformers", "yaml")


def test_help_explains_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    out = capsys.readouterr().out
    words = ("--count", "--reference", "--extractor-weights", "--sweep", "--shard", "accelerate launch")
    assert stop.value.code == 0 and all(word in out for word in words)


def test_one_process_generates_without_the_extra_and_scoring_says_what_to_install(tiny_file, tmp_path):
    block = f"import sys\nfor name in {EXTRAS}: sys.modules[name] = None\nfrom pixeldit_core.cli import main\n"

    def run(*words):
        code = f"{block}sys.exit(main({['evaluate', *map(str, words)]}))"
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    made = run(tiny_file, "--count", 12, "--device", "cpu", "--out", tmp_path / "run", "--npz")
    assert made.returncode == 0 and (tmp_path / "run" / "samples.npz").exists(), made.stderr
    reference = write(draw(9, 1, size=16), tmp_path / "reference")
    scored = run("--score", tmp_path / "run", "--reference", reference)
    assert scored.returncode == 2 and "evaluation needs the package torch-fidelity" in scored.stderr
    assert 'pip install -e ".[eval]"' in scored.stderr and "Traceback" not in scored.stderr


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_cannot_be_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "x", "--shard", text])
    assert "is not a part such as 2/4" in capsys.readouterr().err
