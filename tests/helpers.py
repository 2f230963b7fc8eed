"""Golden data, distances between tensors, recorded intermediates and names of files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"  # bundled
SHARED = ROOT.parent / "shared"
PLACES = (ROOT / "tests" / "golden", SHARED / "golden")
KEYS = (ROOT / "tests" / "golden" / "keys", SHARED / "spec" / "keys")


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


def published_keys(name):
    """Keys with shapes of a published network, and its number of parameters."""
    for folder in KEYS:
        path = folder / f"keys-{name}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    pytest.skip(f"{path.name} is neither in tests/golden nor in ../shared/spec")


def close(actual, expected, tolerance=1e-5, what=""):
    """Every value within an absolute tolerance."""
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0, msg=lambda text: f"{what}: {text}")


def max_distance(actual, expected):
    """Largest absolute distance of any value."""
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def relative_l2(actual, expected):
    """L2 distance, relative to the expected norm."""
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).item()


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def record_output(seen, name, module, take=lambda arguments, result: result):
    """After each forward pass of `module`, `seen[name]` is its result, or what `take` makes of arguments and result."""
    module.register_forward_hook(lambda _, arguments, result: seen.update({name: take(arguments, result)}))


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())
