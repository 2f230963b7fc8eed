"""Writing: LoRAs merged, what it was made from, and nothing half-written whatever happens."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints import save as saving

NAME = "patch_blocks.1.attn.qkv.weight"


def about(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["pixeldit"])


def make_lora(path, seed=1, scale=0.5):
    generator = torch.Generator().manual_seed(seed)
    name = NAME.removesuffix(".weight")
    up, down = (scale * torch.randn(size, generator=generator) for size in ((72, 2), (2, 24)))
    save_file({f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}, path)
    return path


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
def test_loras_are_merged_in_float32(tiny, tiny_file, tmp_path, dtype):
    loras = [(make_lora(tmp_path / "a.safetensors"), 0.7), (make_lora(tmp_path / "b.safetensors", 2), -1.0)]
    path = pc.save_checkpoint(tiny_file, tmp_path / "merged.safetensors", dtype=dtype, loras=loras)
    model = tiny()
    for lora, strength in loras:
        assert pc.apply_lora(model, lora, strength) == 1
    expected, found = model.network.state_dict(), load_file(path)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value.dtype == (dtype or torch.float32)
        assert torch.equal(value, expected[key].to(value.dtype)), key
    assert (found[NAME] != tiny().network.state_dict()[NAME].to(found[NAME].dtype)).any()


def test_a_merged_lora_keeps_the_dtype_of_a_float8_file(tiny_file, tmp_path):
    small = pc.save_checkpoint(tiny_file, tmp_path / "small.safetensors", dtype=torch.float8_e4m3fn)
    lora = make_lora(tmp_path / "a.safetensors", scale=30.0)
    merged = load_file(pc.save_checkpoint(small, tmp_path / "merged.safetensors", loras=[(lora, 1.0)]))
    stored = load_file(small)
    assert {key: value.dtype for key, value in merged.items()} == {key: value.dtype for key, value in stored.items()}
    assert merged[NAME].float().isfinite().all() and merged[NAME].float().abs().max() == 448, "cut off, not NaN"


def test_what_it_was_made_from_is_named(tiny, tiny_file, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    path = pc.save_checkpoint(tiny_file, tmp_path / "copy.safetensors", loras=[(lora, 0.5)])
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tiny_file, lora)}
    assert about(path)["origin"] == {
        "files": {tiny_file.name: sums[tiny_file.name]},
        "loras": [{lora.name: sums[lora.name], "strength": 0.5}],
    }
    assert "origin" not in about(pc.save_checkpoint(tiny(), tmp_path / "own.safetensors"))
    assert pc.load_checkpoint(path).settings == tiny().settings


def test_a_folder_of_peft_is_merged(golden, tmp_path):
    case = golden("madtune-t2i", "peers").folder
    lora = case / "lora_peft"
    path = pc.save_checkpoint(case / "model", tmp_path / "merged.safetensors", loras=[(lora, 0.5)])
    model = pc.load_checkpoint(case / "model")
    assert pc.apply_lora(model, lora, 0.5) == 8
    found, expected = load_file(path), model.network.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert list(about(path)["origin"]["loras"][0]) == ["adapter_model.safetensors", "strength"]
    with pytest.raises(ValueError, match="is a folder without"):
        pc.save_checkpoint(case / "model", tmp_path / "x.safetensors", loras=[(case, 1.0)])


def test_a_lora_that_does_not_fit_writes_nothing(tiny_file, tmp_path):
    lora = tmp_path / "other.safetensors"
    save_file({"blocks.0.q.lora_A.weight": torch.zeros(2, 3), "blocks.0.q.lora_B.weight": torch.zeros(3, 2)}, lora)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="none of its 1 modules is in this network"):
        pc.save_checkpoint(tiny_file, tmp_path / "merged.safetensors", loras=[(lora, 1.0)])
    assert sorted(tmp_path.iterdir()) == before


def test_neither_source_nor_lora_is_overwritten(tiny_file, tmp_path):
    lora = make_lora(tmp_path / "a.safetensors")
    for target in (tiny_file, lora):
        before = target.read_bytes()
        with pytest.raises(ValueError, match="is the source itself"):
            pc.save_checkpoint(tiny_file, target, loras=[(lora, 1.0)])
        assert target.read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_nothing(tiny, tmp_path, monkeypatch, error):
    def half(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise error

    target = tmp_path / "model.safetensors"
    target.write_bytes(b"an older one")
    monkeypatch.setattr(saving, "save_file", half)
    with pytest.raises(error):
        pc.save_checkpoint(tiny(), target)
    assert target.read_bytes() == b"an older one" and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are set otherwise there")
def test_a_full_disk_leaves_nothing(tiny_file, tmp_path):
    """A process that may not write more than 10 kB to a file."""
    target = tmp_path / "out" / "model.safetensors"
    script = (
        "import resource, signal, sys\n"
        "import pixeldit_core as pc\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    pc.save_checkpoint(sys.argv[1], sys.argv[2])\n"
        "except ValueError as error:\n"
        "    sys.exit('error: ' + str(error))\n"
    )
    before = tiny_file.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", script, tiny_file, target], capture_output=True, text=True, timeout=120, check=False
    )
    assert "error: " in done.stderr and "could not be written" in done.stderr, done.stderr
    assert list(target.parent.iterdir()) == [] and tiny_file.read_bytes() == before


@pytest.mark.parametrize(
    "case, family",
    [("comfy-t2i-int8-convrot", "pixeldit_t2i"), ("comfy-t2i-mxfp8", "pixeldit_t2i"), ("bili-c2i", "pixeldit")],
)
@pytest.mark.parametrize("layout", ["canonical", "comfyui"])
def test_any_readable_layout_is_converted(golden, tmp_path, case, family, layout):
    folder = golden(case, "peers").folder
    source = folder / "model" if (folder / "model").exists() else folder / "checkpoint.safetensors"
    path = pc.save_checkpoint(source, tmp_path / "plain.safetensors", layout, torch.float32)
    model, again = pc.load_checkpoint(source), pc.load_checkpoint(path)
    assert again.family.name == family and again.params == model.params
    assert (again.class_names, again.settings) == (model.class_names, model.settings)
    state, found = model.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(state[key], found[key]) for key in state)
    assert pc.inspect_checkpoint(path).quantization is None
