"""Fixtures of all tests; built by helpers.py and factories.py."""

import os
from types import SimpleNamespace

import factories
import helpers
import pytest
import torch
from reference_time import reference_processor as with_reference_times
from torchvision_operators import define_missing_operators

import pixeldit_core as pc
from pixeldit_core.layers import embeddings


def pytest_configure(config):
    define_missing_operators()
    torch.set_float32_matmul_precision("highest")
    # One: the networks here are tiny, and threads only wait for one another. Where `make test-portable` asks for more,
    # it has to be asked again: MKL lowers the variable to the number of cores.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]))


def pytest_report_header(config):
    """What decides the last bits of a result, so that a run says which machine it stands for."""
    names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "OMP_NUM_THREADS")
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {kernels} kernels, {torch.get_num_threads()} threads {' '.join(given)}".strip()


def pytest_collection_modifyitems(items):
    """Whatever asks for golden data is of the golden tests, wherever it stands."""
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.golden)


@pytest.fixture(scope="session")
def golden():
    """A function that finds a golden case."""
    return helpers.find_golden


@pytest.fixture(scope="session")
def published_keys():
    """A function that reads the keys of a published network."""
    return helpers.published_keys


@pytest.fixture
def reference_processor():
    """Time features with the last bits of the processor that recorded the golden data."""
    with with_reference_times(embeddings, helpers.find_golden("tables_time_embedding").folder):
        yield


@pytest.fixture
def tiny():
    """A function that builds a small model with random weights and names for its twelve classes."""
    return factories.tiny_model


@pytest.fixture
def tiny_t2i():
    """A function that builds a small text-to-image model with random weights."""
    return factories.tiny_t2i_model


@pytest.fixture
def tiny_file(tiny, tmp_path):
    """The file of a tiny model."""
    return pc.save_checkpoint(tiny(), tmp_path / "tiny.safetensors")


@pytest.fixture
def calls():
    """A function that records each call of a model's network: rows, time, labels (or text) and output."""

    def record(model):
        seen = []

        def note(_, arguments, output):
            x, time, labels = arguments[:3]
            seen.append(SimpleNamespace(rows=len(x), time=time.clone(), labels=labels.clone(), output=output.clone()))

        model.network.register_forward_hook(note)
        return seen

    return record
