"""The command line as a program: help, errors, Ctrl-C and progress."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, file_names
from PIL import Image

from pixeldit_core.cli import main


def command(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pixeldit_core", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"], ["inspect", "--help"], ["convert", "--help"]])
def test_help_has_examples(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert "examples:\n  python -m pixeldit_core " in capsys.readouterr().out


def test_as_a_program_errors_have_no_traceback(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"")
    process = command("sample", broken, "--out", tmp_path / "out")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 2 and output == ""
    assert error == "error: broken.safetensors is empty. The download probably stopped: get the file again.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")
def test_ctrl_c_leaves_whole_files_only(tiny_file, tmp_path):
    out = tmp_path / "out"
    arguments = ("sample", tiny_file, "--seeds", "0-999", "--batch-size", "1", "--steps", "50", "--out", out)
    # as in a terminal: a background job, which these tests may be, ignores SIGINT, and so do its children
    process = command(*arguments, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    deadline = time.monotonic() + 120
    while not (out.exists() and len(file_names(out)) > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error and "of 12000 images are finished" in error
    names = file_names(out)
    assert names and not any(name.endswith(".part") for name in names) and "contact-sheet.png" not in names
    for name in names:
        Image.open(out / name).load()


def test_progress_is_shown_on_a_terminal(tiny_file, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["sample", str(tiny_file), "--classes", "0-3", "--batch-size", "2", "--out", str(tmp_path)]) == 0
    assert "0.0/4 images" in terminal.getvalue()
