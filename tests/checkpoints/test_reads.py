"""How much of a file is read for what its header says, how often it is opened, and what is imported on the way."""

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from checkpoints.pickled_files import save
from checkpoints.quantized_files import quantize_state
from factories import TINY, tiny_model, tiny_t2i_model
from helpers import ROOT
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.inspect import lacks_encoder

COUNTERS = Path("/proc/self/io")  # Linux's, of this process
counted = pytest.mark.skipif(not COUNTERS.exists(), reason="this system does not count what a process reads")
LARGE = 40 * 2**20  # numbers of float32, of which no header says anything
OPENED = []  # names of files, while a test counts them; a hook stays for ever, so there is one
HEAVY = "torch._dynamo torch._inductor sympy scipy torchvision transformers accelerate".split()


@dataclass
class Reading:
    """What a call read: bytes, calls of the system, and how often it opened the file."""

    size: int
    calls: int
    opened: int


def counters():
    values = dict(line.split(": ") for line in COUNTERS.read_text(encoding="ascii").splitlines())
    return int(values["rchar"]), int(values["syscr"])


def note(event, arguments):
    if event == "open" and OPENED:
        OPENED.append(str(arguments[0]))


sys.addaudithook(note)


def reading(function, path):
    """What `function` reads of a file once everything else, such as modules, is in memory."""
    function(path)
    before = counters()
    OPENED[:] = ["begin"]
    try:
        function(path)
        opened = OPENED.count(str(path))
    finally:
        OPENED.clear()
    after = counters()
    return Reading(after[0] - before[0], after[1] - before[1], opened)


def large(path, container):
    """A network, and the average of an optimizer that takes 160 MiB."""
    state = tiny_model().network.state_dict()
    more = torch.zeros(LARGE)
    if container == "safetensors":
        save_file({**state, "ema.counter": more}, path)
    else:
        save(path, {"state_dict": state, "optimizer": {"state": {0: {"exp_avg": more}}}}, container)
    assert path.stat().st_size > 2 * LARGE
    return path


@counted
@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
def test_a_header_is_all_that_is_read_of_a_large_file(container, tmp_path):
    read = reading(pc.inspect_checkpoint, large(tmp_path / "x.bin", container))
    assert read.size < 1.5 * 2**20 and read.calls < 40 and read.opened <= 3
    assert pc.inspect_checkpoint(tmp_path / "x.bin").family == ("pixeldit" if container != "safetensors" else None)


@counted
def test_of_a_zip_file_no_part_is_visited_for_its_header(tmp_path):
    few = reading(pc.inspect_checkpoint, save(tmp_path / "few.pt", tiny_model().network.state_dict()))
    deeper = tiny_model(replace(TINY, patch_depth=12)).network.state_dict()
    many = reading(pc.inspect_checkpoint, save(tmp_path / "many.pt", deeper))
    assert len(deeper) > 100 and many.calls - few.calls < 10


def test_of_a_quantized_file_only_the_formats_are_read(tmp_path, caplog):
    """Weights of zeros are reported where they are looked at."""
    state = {key: torch.zeros_like(value) for key, value in tiny_t2i_model().network.state_dict().items()}
    stored, _ = quantize_state(state, "fp8", lambda key: "qkv_x" in key)
    save_file(stored, tmp_path / "x.safetensors")
    with caplog.at_level(logging.WARNING):
        assert pc.inspect_checkpoint(tmp_path / "x.safetensors").quantization == "fp8"
        assert not caplog.records
        pc.read_checkpoint(tmp_path / "x.safetensors")
        assert "hold nothing but zeros" in caplog.text


@counted
def test_the_encoder_is_looked_for_by_names_alone(tmp_path):
    path = pc.save_checkpoint(tiny_model(), tmp_path / "x.safetensors")
    assert not lacks_encoder(path)
    assert reading(lacks_encoder, path).opened <= reading(pc.inspect_checkpoint, path).opened <= 2


def test_nothing_heavy_is_imported_from_a_file_to_its_image():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import pixeldit_core as pc\n"
        "path = 'models/pixeldit-emoji-96.safetensors'\n"
        "pc.inspect_checkpoint(path); model = pc.load_checkpoint(path)\n"
        "x = pc.sample(model, pc.class_condition(model, [5]), seeds=[0], steps=2)\n"
        "pc.contact_sheet(pc.to_uint8(model, x))\n"
        "print('\\n'.join(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(run.stdout.split())
