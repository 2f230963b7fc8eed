"""Two processes: the gradients of one with the same global batch, and the same run after a stop."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from training.pixeldit2_runs import write_encoder
from training.two_processes import CASES, STEPS, case_config
from training_runs import config_of, gradients_of, notes_of, same_state, state_of, train, write_images

from pixeldit_core.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv, which torch lacks on Windows")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder)
    return write_images(folder / "images")


@pytest.fixture(scope="module")
def two(images, tmp_path_factory):
    """What two processes wrote."""
    out = tmp_path_factory.mktemp("two")
    script = ROOT / "tests" / "training" / "two_processes.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": paths}
    run = subprocess.run([*launcher, script, images, out], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return out


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_one_process(images, two, name):
    expected, _ = gradients_of(case_config(name, images), STEPS[name])
    found = torch.load(two / f"{name}.pt", weights_only=True)
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-6 * scale.item(), rtol=1e-5, msg=key)
    assert any(gradient.any() for gradient in expected.values())


def test_a_run_of_two_processes_that_one_stopped_goes_on_bit_for_bit(two):
    whole, stopped = RunFolder(two / "whole"), RunFolder(two / "stopped")
    assert whole.steps() == [60] and stopped.steps() == [37, 60]
    assert same_state(state_of(whole, 60), state_of(stopped, 60))
    assert whole.log.read_text("utf-8").count("\n") == 61
    assert notes_of(whole, 60)["processes"] == 2


def test_one_process_goes_on_where_two_stopped(images, two, tmp_path):
    stopped = RunFolder(two / "stopped")
    stopped.checkpoint(60).rename(tmp_path / "away")
    again = train(config_of(images), stopped.path, resume=True)
    (tmp_path / "away").rename(tmp_path / "step-000060")
    expected, found = state_of(RunFolder(two / "whole"), 60), state_of(again, 60)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3)


def test_processes_agree_on_micro_batches_that_fit_in_all(images, two, tmp_path):
    little = RunFolder(two / "little")
    assert notes_of(little, 5)["micro_batch"] == 2
    alone = train(config_of(images, **CASES["plain"] | {"engine": CASES["plain"]["engine"] | {"steps": 5}}), tmp_path)
    expected = state_of(alone, 5)
    for name, tensor in state_of(little, 5).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3)
