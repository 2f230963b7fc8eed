"""Writing: LoRAs merged, what it was made from, and nothing half-written whatever happens."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest
import torch
from checkpoints.files import prefixed, same, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints import save as saving


@pytest.mark.parametrize("layout, prefix", [("canonical", ""), ("comfyui", "model.diffusion_model.")])
def test_saved_and_loaded_again(tiny, tmp_path, layout, prefix):
    model = tiny()
    path = pc.save_checkpoint(model, tmp_path / "new" / "model.safetensors", layout)
    assert set(load_file(path)) == {prefix + key for key in model.network.state_dict()}
    again = pc.load_checkpoint(path)
    assert same(again, model.network.state_dict())
    assert again.params == model.params and again.class_names == model.class_names and again.settings == model.settings
    info = pc.inspect_checkpoint(path)
    assert (info.class_names, info.settings, info.params) == (model.class_names, model.settings, model.params)
    assert (info.family, info.dtype, info.quantization) == ("pixeldit", torch.float32, None)


def test_what_a_file_says_of_itself_is_kept(tiny, tmp_path):
    model = tiny()
    model.spec = dataclasses.replace(model.spec, about=(("author", "A"), ("license", "MIT")))
    first = pc.save_checkpoint(model, tmp_path / "first.safetensors")
    with safe_open(first, "pt") as file:
        assert {k: v for k, v in file.metadata().items() if "modelspec" in k} == {
            "modelspec.author": "A",
            "modelspec.license": "MIT",
        }
    second = pc.save_checkpoint(first, tmp_path / "second.safetensors", dtype=torch.float16)
    assert pc.load_checkpoint(second).spec.about == model.spec.about == pc.inspect_checkpoint(second).spec.about


def test_a_thumbnail_is_not_carried_along(tiny, tmp_path):
    said = {"modelspec.license": "MIT", "modelspec.thumbnail": "data:" + 10_000 * "x", "title": "of another program"}
    save_file(tiny().network.state_dict(), tmp_path / "theirs.safetensors", said)
    assert pc.load_checkpoint(tmp_path / "theirs.safetensors").spec.about == (("license", "MIT"),)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saved_in_less_precision(tiny, tmp_path, dtype):
    model = tiny()
    path = pc.save_checkpoint(model, tmp_path / "small.safetensors", dtype=dtype)
    assert pc.inspect_checkpoint(path).dtype == dtype
    again = pc.load_checkpoint(path)
    assert again.dtype == torch.float32
    assert same(again, {key: value.to(dtype).float() for key, value in model.network.state_dict().items()})
    assert pc.load_checkpoint(path, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_loads_and_samples(tiny, tmp_path, dtype):
    model = tiny()
    big = model.network.patch_blocks[0].attn.qkv.weight
    big.data[0, 0] = 1e6  # beyond what float8 can say
    state = model.network.state_dict()
    path = pc.save_checkpoint(model, tmp_path / "fp8.safetensors", dtype=dtype)
    stored = load_file(path)
    for key, value in stored.items():
        wanted = dtype if value.ndim == 2 and "blocks." in key else torch.bfloat16
        assert value.dtype == wanted, key
        assert torch.isfinite(value.float()).all(), key
    info = pc.inspect_checkpoint(path)
    assert info.quantization == "fp8" and info.refused is None
    again = pc.load_checkpoint(path)
    assert same(again, {key: value.float() for key, value in stored.items()})
    assert again.network.patch_blocks[0].attn.qkv.weight[0, 0] == torch.finfo(dtype).max
    state["patch_blocks.0.attn.qkv.weight"][0, 0] = 0
    plain = write(tmp_path / "plain.safetensors", {key: value.to(dtype) for key, value in state.items()})
    x = pc.sample(pc.load_checkpoint(plain), torch.tensor([1]), size=(8, 8), steps=2)
    assert torch.isfinite(x).all()


def test_one_file_from_another(tiny, tmp_path):
    raw, ema = (tiny(seed=seed).network.state_dict() for seed in (1, 2))
    source = write(tmp_path / "train.ckpt", prefixed("denoiser.", raw) | prefixed("ema_denoiser.", ema))
    assert same(pc.load_checkpoint(pc.save_checkpoint(source, tmp_path / "a.safetensors")), ema)
    assert same(pc.load_checkpoint(pc.save_checkpoint(source, tmp_path / "b.safetensors", weights="raw")), raw)
    with pytest.raises(ValueError, match="is the source itself"):
        pc.save_checkpoint(tmp_path / "a.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="nowhere.ckpt: there is no such file"):
        pc.save_checkpoint(tmp_path / "nowhere.ckpt", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match='layout "diffusers" is not known; there are canonical, comfyui'):
        pc.save_checkpoint(source, tmp_path / "c.safetensors", "diffusers")
    with pytest.raises(ValueError, match="c.ckpt: only .safetensors is written"):
        pc.save_checkpoint(source, tmp_path / "c.ckpt")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tiny, tmp_path):
    path = pc.save_checkpoint(tiny(seed=1), tmp_path / "model.safetensors")
    before = path.read_bytes()
    broken = tiny(seed=2)
    broken.network.to("meta")  # tensors without data cannot be written
    with pytest.raises(Exception, match="."):
        pc.save_checkpoint(broken, path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]

    class Unreadable:  # fails when the file is being written
        def keys(self):
            raise KeyboardInterrupt

    from pixeldit_core.atomic import atomic_path

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as part:
        part.write_bytes(b"half")
        Unreadable().keys()
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_saved_file_may_be_read_like_any_other(tiny_file):
    other = tiny_file.with_name("other")
    other.touch()
    assert tiny_file.stat().st_mode == other.stat().st_mode


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


def test_the_metadata_names_the_source(tiny, tiny_file, tmp_path):
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
    with pytest.raises(ValueError, match="is a folder with 2 LoRAs: .* Choose one"):
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
        "    sys.exit('refused: ' + str(error))\n"
    )
    before = tiny_file.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", script, tiny_file, target], capture_output=True, text=True, timeout=120, check=False
    )
    assert "refused: " in done.stderr and "could not be written" in done.stderr, done.stderr
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


@pytest.mark.parametrize("stem", ["\u753b" * 80, "x" * 240])
def test_long_names(tiny, tmp_path, stem):
    path = pc.save_checkpoint(tiny(), tmp_path / f"{stem}.safetensors")
    assert same(pc.load_checkpoint(path), tiny().network.state_dict()) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stem", ["\u753b" * 100, "x" * 300])
@pytest.mark.parametrize("source", ["model", "file"])
def test_a_name_that_is_too_long(tiny, tiny_file, tmp_path, stem, source):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"its name has \d+ characters \(\d+ bytes\).*Choose a shorter name"):
        pc.save_checkpoint(tiny() if source == "model" else tiny_file, tmp_path / "out" / f"{stem}.safetensors")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name, words", [
    ("a\0.safetensors", "characters that this system cannot write"),
    ("a\ud800.safetensors", r"a\\ud800.safetensors cannot be written: its name has characters"),
    ("file/a.safetensors", "a part of its path is a file, not a folder. Choose another folder"),
    ("folder.safetensors", "there is a folder of that name. Choose another name"),
])  # fmt: skip
def test_targets_that_cannot_be(tiny, tiny_file, tmp_path, name, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for source in (tiny(), tiny_file):
        with pytest.raises(ValueError, match=words):
            pc.save_checkpoint(source, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_values_beyond_float16_are_not_made_infinite(tiny, tmp_path):
    model = tiny()
    model.network.state_dict()["final_layer.linear.bias"][0] = 1e6
    with pytest.raises(ValueError, match=r"final_layer.linear.bias has values up to 1e\+06, .* bf16 or fp32"):
        pc.save_checkpoint(model, tmp_path / "a.safetensors", dtype=torch.float16)
    pc.save_checkpoint(model, tmp_path / "a.safetensors", dtype=torch.bfloat16)


@pytest.mark.parametrize("style", ["fp8-scaled", "fp8-metadata", "fp8-old"])
@pytest.mark.parametrize("layout", ["canonical", "comfyui"])
def test_scaled_float8_stays_as_it_is(golden, tmp_path, style, layout):
    source = golden(f"comfy-t2i-{style}", "peers").folder / "checkpoint.safetensors"
    path = pc.save_checkpoint(source, tmp_path / "copy.safetensors", layout)
    found, expected = (pc.load_checkpoint(file).network.state_dict() for file in (path, source))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    stored = load_file(path)
    key = next(key for key in stored if key.endswith("patch_blocks.0.attn.qkv_x.weight"))
    assert stored[key].dtype == torch.float8_e4m3fn and stored[f"{key}_scale"].shape == ()
    assert pc.inspect_checkpoint(path).quantization == "fp8"
    plain = pc.save_checkpoint(source, tmp_path / "plain.safetensors", dtype=torch.bfloat16)
    assert pc.inspect_checkpoint(plain).quantization is None


@pytest.mark.parametrize("name, reason", [
    ("a\0.safetensors", "characters that this system cannot write. .*another name"),
    (".safetensors", "an ending without a name"), ("gone/x.safetensors", "gone in its path is a link to a folder"),
    ("circle/x.safetensors", "a link in its path leads to itself"),
    ("x" * 300 + ".safetensors", "its name has 312 characters"),
])  # fmt: skip
def test_names_that_cannot_be_written(tiny, tmp_path, name, reason):
    (tmp_path / "gone").symlink_to("nowhere/at/all")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ValueError, match=reason) as error:
        pc.save_checkpoint(tiny(), tmp_path / name)
    assert str(error.value).isprintable() and len(str(error.value)) < 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "gone"]


def test_the_ending_in_capitals(tiny, tmp_path):
    path = pc.save_checkpoint(tiny(), tmp_path / "A.SAFETENSORS")
    assert same(pc.load_checkpoint(path), tiny().network.state_dict())


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_in_an_old_encoding(tiny_file, tmp_path):
    path = tmp_path / "\udce9.safetensors"
    path.write_bytes(tiny_file.read_bytes())
    with pytest.raises(ValueError, match="letters in an old encoding. Rename the file") as error:
        pc.load_checkpoint(path)
    assert "damaged" not in str(error.value) and str(error.value).isprintable()
