"""What the core's tests share: golden data, and small networks with random weights."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.layers import embeddings as positions

TESTS = Path(__file__).parents[1]
SHARED = TESTS.parent.parent / "shared"
PLACES = (TESTS / "golden", SHARED / "golden")
KEYS = (TESTS / "golden" / "keys", SHARED / "spec" / "keys")

TINY = pc.PixelDiTParams(
    hidden_size=24,
    num_groups=2,
    patch_depth=2,
    pixel_depth=1,
    patch_size=4,
    pixel_hidden_size=4,
    num_classes=12,
    mlp_hidden_size=64,  # what the shapes tell, so that params are equal after loading
    pixel_attn_hidden_size=24,
    pixel_num_groups=2,
)
TINY_T2I = pc.PixelDiTT2IParams(
    hidden_size=24,
    num_groups=2,
    patch_depth=2,
    pixel_depth=2,
    pixel_attn_hidden_size=16,
    pixel_num_groups=2,
    patch_size=4,
    pixel_hidden_size=4,
    txt_embed_dim=12,
    txt_max_length=6,
    mlp_hidden_size=64,
)
NAMES = (
    ("circle", "disc"),
    ("square",),
    ("tabby", "tabby cat"),
    ("star",),
    ("crane", "bird"),
    ("crane", "machine"),
    *((f"thing {number}",) for number in range(6, 12)),
)


def pytest_configure(config):
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


def find_golden(name, system="official"):
    """A golden case: folder, case (its JSON), inputs, outputs, and a path to its checkpoint."""
    for place in PLACES:
        folder = place / system / name
        if (folder / "case.json").exists():
            break
    else:
        pytest.skip(f"golden case {system}/{name} is neither in tests/golden nor in ../shared/golden")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    stored = case.get("checkpoint")
    stored = stored["file"] if isinstance(stored, dict) else stored
    files = {part: folder / f"{part}.safetensors" for part in ("inputs", "outputs")}
    return SimpleNamespace(
        folder=folder,
        case=case,
        checkpoint=folder / stored if stored else None,
        **{part: load_file(path) if path.exists() else {} for part, path in files.items()},
    )


@pytest.fixture(scope="session")
def golden():
    return find_golden


@pytest.fixture(scope="session")
def published_keys():
    """A function that reads a list of a published network: its keys with shapes, and its number of parameters."""

    def read(name):
        for folder in KEYS:
            path = folder / f"keys-{name}.json"
            if path.exists():
                return json.loads(path.read_text(encoding="utf-8"))
        pytest.skip(f"{path.name} is neither in tests/golden nor in ../shared/spec")

    return read


@pytest.fixture
def reference_processor(monkeypatch):
    """Time features with the last bits of the processor that recorded the golden data."""
    monkeypatch.syspath_prepend(TESTS)
    from reference_time import reference_processor

    with reference_processor(positions, find_golden("tables_time_embedding").folder):
        yield


def fill(network, seed=0, scale=0.1):
    """Weights that make every part of a network matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        around = 1.0 if "norm" in name else 0.0
        parameter.data.copy_(around + scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def tiny():
    """A function that builds a small model with random weights and names for its twelve classes."""

    def make(params=TINY, seed=0, dtype=torch.float32, **kit):
        model = pc.build_model("pixeldit", params, device="cpu", dtype=dtype, **kit)
        fill(model.network, seed)
        model.spec = replace(
            model.spec,
            class_names=NAMES[: params.num_classes],
            settings=pc.SamplingSettings(steps=4, cfg=2.0, cfg_interval=(0.1, 0.9), size=(16, 16)),
        )
        return model

    return make


@pytest.fixture
def tiny_t2i():
    """A function that builds a small text-to-image model with random weights."""

    def make(params=TINY_T2I, seed=0, dtype=torch.float32, **kit):
        model = pc.build_model("pixeldit_t2i", params, device="cpu", dtype=dtype, **kit)
        fill(model.network, seed, 0.2)  # the text reaches the picture through many a gate
        model.spec = replace(
            model.spec,
            settings=pc.SamplingSettings(steps=4, cfg=2.0, timeshift=3.0, solver="flow_dpmpp_2m", size=(16, 16)),
        )
        return model

    return make


@pytest.fixture
def tiny_file(tiny, tmp_path):
    """The file of a tiny model."""
    return pc.save_checkpoint(tiny(), tmp_path / "tiny.safetensors")


@pytest.fixture
def calls():
    """A function that records each call of a model's network: rows, time, labels (or text) and output."""

    def record(model):
        found = []

        def note(_, arguments, output):
            x, time, labels = arguments[:3]
            found.append(SimpleNamespace(rows=len(x), time=time.clone(), labels=labels.clone(), output=output.clone()))

        model.network.register_forward_hook(note)
        return found

    return record
