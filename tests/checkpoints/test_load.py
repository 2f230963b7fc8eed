"""Layouts, the choice of weights, saving, inspecting."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.locate import find_source
from pixeldit_core.checkpoints.read import read_source_shapes


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def write(path, state, **others):
    """A file of this state dict: safetensors by its suffix, else torch's with `others` beside."""
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save({"state_dict": state, **others}, path)
    return path


def same(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    "prefix, weights",
    [
        ("", "raw"),
        ("model.diffusion_model.", "raw"),
        ("diffusion_model.", "raw"),
        ("denoiser.", "raw"),
        ("ema_denoiser.", "ema"),
        ("module.", "raw"),
        ("_orig_mod.", "raw"),
        ("ema_denoiser._orig_mod.", "ema"),
        ("module.denoiser.", "raw"),
        ("net_ema.", "ema"),
    ],
)
def test_prefixes(tiny, tmp_path, prefix, weights, suffix):
    state = tiny().network.state_dict()
    path = write(tmp_path / f"file{suffix}", prefixed(prefix, state))
    model = pc.load_checkpoint(path)
    assert same(model, state) and model.spec.weights == weights and model.spec.source == path.name
    assert model.params == tiny().params
    info = pc.inspect_checkpoint(path)
    assert info.weights == (weights,) and info.layout == (prefix or "canonical") and info.refused is None
    pc.load_checkpoint(path, weights=weights)
    other = "ema" if weights == "raw" else "raw"
    with pytest.raises(ValueError, match=f"{path.name} has no {other} weights, only {weights}"):
        pc.load_checkpoint(path, weights=other)
    with pytest.raises(ValueError, match='weights "best" is not a choice'):
        pc.load_checkpoint(path, weights="best")


@pytest.mark.parametrize(
    "raw, ema",
    [
        ("denoiser.", "ema_denoiser."),
        ("denoiser._orig_mod.", "ema_denoiser._orig_mod."),
        ("module.denoiser.", "module.ema_denoiser."),
        ("net.", "net_ema."),
        ("", "ema."),
    ],
)
def test_averaged_weights_are_preferred(tiny, tmp_path, raw, ema):
    states = {"raw": tiny(seed=1).network.state_dict(), "ema": tiny(seed=2).network.state_dict()}
    both = prefixed(raw, states["raw"]) | prefixed(ema, states["ema"])
    trainer = raw.split("denoiser.")[0] if "denoiser." in raw else ""
    both[f"{trainer}diffusion_trainer.proj.0.0.weight"] = torch.zeros(2)
    path = write(tmp_path / "both.ckpt", both)
    assert pc.inspect_checkpoint(path).weights == ("ema", "raw")
    for choice, expected in {"auto": "ema", "ema": "ema", "raw": "raw"}.items():
        model = pc.load_checkpoint(path, weights=choice)
        assert same(model, states[expected]) and model.spec.weights == expected


@pytest.mark.parametrize(
    "raw, ema",
    [
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("model", "model_ema"),
        ("model_state_dict", "ema_model_state_dict"),
    ],
)
def test_containers_of_trainers(tiny, tmp_path, raw, ema):
    states = {"raw": tiny(seed=1).network.state_dict(), "ema": tiny(seed=2).network.state_dict()}
    path = tmp_path / "trainer.pt"
    torch.save({raw: states["raw"], ema: states["ema"], "optimizer": {"state": [torch.zeros(3)]}, "epoch": 3}, path)
    for choice, expected in {"auto": "ema", "raw": "raw"}.items():
        assert same(pc.load_checkpoint(path, weights=choice), states[expected])


def test_a_bare_pickled_state_dict(tiny, tmp_path):
    state = tiny().network.state_dict()
    torch.save(dict(state), tmp_path / "bare.bin")
    assert same(pc.load_checkpoint(tmp_path / "bare.bin"), state)
    torch.save(dict(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(pc.load_checkpoint(tmp_path / "old.pth"), state)


def test_a_checkpoint_of_comfyui_with_its_neighbours(tiny, tmp_path):
    state = tiny().network.state_dict()
    path = tmp_path / "comfy.safetensors"
    neighbors = {"vae.decoder.conv_in.weight": torch.zeros(1), "text_encoders.t5.x": torch.zeros(1)}
    write(path, prefixed("model.diffusion_model.", state) | neighbors)
    assert same(pc.load_checkpoint(path), state)
    assert pc.inspect_checkpoint(path).count == sum(value.numel() for value in state.values())


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


def test_a_variant_and_sizes_come_from_shapes(tiny, tmp_path):
    params = pc.PixelDiTParams(
        hidden_size=32,
        num_groups=4,
        patch_depth=3,
        pixel_depth=2,
        patch_size=2,
        pixel_hidden_size=8,
        num_classes=3,
        in_channels=4,
        mlp_hidden_size=50,
        pixel_attn_hidden_size=24,
        pixel_num_groups=3,
        pit_adaln_post_modulation=True,
        image_mean=(0.5,) * 4,
        image_std=(0.5,) * 4,
    )
    model = tiny(params)
    bare = write(tmp_path / "bare.safetensors", model.network.state_dict())
    found = pc.inspect_checkpoint(bare).params
    for name in ("hidden_size", "num_groups", "patch_depth", "pixel_depth", "patch_size", "pixel_hidden_size",
                 "num_classes", "in_channels", "mlp_hidden_size", "pixel_attn_hidden_size", "pixel_num_groups",
                 "pit_adaln_post_modulation"):  # fmt: skip
        assert getattr(found, name) == getattr(params, name), name
    assert pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "own.safetensors")).params == params


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


def test_params_of_the_caller(tiny, tmp_path):
    state = tiny().network.state_dict()
    path = write(tmp_path / "bare.safetensors", state)
    assert pc.load_checkpoint(path).params.use_pixel_abs_pos is True
    model = pc.load_checkpoint(path, params={"use_pixel_abs_pos": False})
    assert model.params.use_pixel_abs_pos is False
    x = torch.randn(1, 3, 8, 8)
    with_positions = pc.load_checkpoint(path).velocity(x, 0.5, torch.tensor([1]))
    assert not torch.allclose(model.velocity(x, 0.5, torch.tensor([1])), with_positions)
    with pytest.raises(ValueError, match="bare.safetensors: params says hidden_size = 32, its tensors say 24"):
        pc.load_checkpoint(path, params={"hidden_size": 32})
    with pytest.raises(ValueError, match='bare.safetensors: params has "depth", which is not a parameter of PixelDiT'):
        pc.load_checkpoint(path, params={"depth": 3})


def test_params_of_the_caller_go_before_those_of_the_file(tiny, tmp_path):
    from dataclasses import replace

    model = tiny()
    model = tiny(replace(model.params, use_pixel_abs_pos=False))
    path = pc.save_checkpoint(model, tmp_path / "own.safetensors")
    assert pc.load_checkpoint(path).params.use_pixel_abs_pos is False
    assert pc.load_checkpoint(path, params={"use_pixel_abs_pos": True}).params.use_pixel_abs_pos is True


def rewrite_metadata(path, change):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "about, reason",
    [
        ("{", 'metadata entry "pixeldit" is not readable'),
        ("[]", 'metadata entry "pixeldit" is not readable'),
        ('{"params": {"hidden_size": 48}}', "its metadata says hidden_size = 48, its tensors say 24"),
        ('{"params": {"magic": 1}}', 'its metadata has "magic"'),
        ('{"params": 3}', 'metadata entry "pixeldit" is not readable'),
        ('{"settings": {"steps": "many"}}', 'metadata entry "pixeldit" is not readable'),
        ('{"settings": {"steps": 0, "cfg": 1}}', "steps >= 1"),
        ('{"class_names": ["a", "b"]}', "2 class names for 12 classes"),
        ('{"class_names": 5}', 'metadata entry "pixeldit" is not readable'),
        ('{"family": "sd"}', '"sd"'),
    ],
)
def test_metadata_that_is_wrong_is_named(tiny_file, about, reason):
    rewrite_metadata(tiny_file, lambda metadata: metadata.update(pixeldit=about))
    with pytest.raises(ValueError, match=reason) as error:
        pc.load_checkpoint(tiny_file)
    assert "tiny.safetensors" in str(error.value)
    assert reason in pc.inspect_checkpoint(tiny_file).refused


def test_inspecting_reads_the_header_only(tmp_path):
    """A file of gigabytes that has a header and a hole: to read its tensors would take their memory."""
    model = pc.build_model("pixeldit", "PixelDiT-XL")
    header, end = {}, 0
    for key, value in model.network.state_dict().items():
        size = value.numel() * 4
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path = tmp_path / "xl.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    before = peak_memory()
    info = pc.inspect_checkpoint(path)
    assert info.count == 797_383_203 and info.params == pc.VARIANTS["PixelDiT-XL"].params.__class__(
        **{**vars(pc.VARIANTS["PixelDiT-XL"].params), "mlp_hidden_size": 3072, "pixel_attn_hidden_size": 1152,
           "pixel_num_groups": 16}
    )  # fmt: skip
    assert info.class_names[207] == pc.inspect_checkpoint(path).class_names[207]
    assert peak_memory() - before < 200e6
    assert path.stat().st_size > 3e9
    path.unlink()


def peak_memory():
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_read_checkpoint_gives_what_is_stored(tiny, tmp_path):
    state = {"a.b": torch.ones(2, 3), "vae.c": torch.zeros(1, dtype=torch.float16)}
    save_file(state, tmp_path / "x.safetensors", {"author": "me"})
    tensors, metadata = pc.read_checkpoint(tmp_path / "x.safetensors")
    assert metadata == {"author": "me"} and set(tensors) == set(state)
    assert all(torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype for key, value in state.items())
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [torch.zeros(2)]}, tmp_path / "x.ckpt")
    tensors, metadata = pc.read_checkpoint(tmp_path / "x.ckpt")
    assert set(tensors) == set(state) and metadata == {"epoch": "3"}
    shapes, dtypes, _ = read_source_shapes(find_source(tmp_path / "x.safetensors"))
    assert shapes == {"a.b": (2, 3), "vae.c": (1,)} and dtypes["vae.c"] == torch.float16
