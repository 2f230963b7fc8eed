"""Files that cannot be loaded: each is named, with what was found, what was expected and what to do next."""

import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.layouts import REFUSED


def fails(path, *reason):
    """Loading and reading raise ValueError with the file's name and all of `reason`; inspecting says the same."""
    with pytest.raises(ValueError) as error:
        pc.load_checkpoint(path)
    message = str(error.value)
    assert path.name in message
    for text in reason:
        assert text in message, message
    try:
        refused = pc.inspect_checkpoint(path).refused
    except ValueError as same:
        refused = str(same)
    assert refused == message
    return message


@pytest.mark.parametrize("content, reason", [
    (b"", "is empty"),
    (b"Not weights, but a letter to the reader.\n", "is not a checkpoint"),
    (b"<!DOCTYPE html><html><body>Sign in to download</body></html>", "is a web page"),
    (b"  <html lang=en>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a Git LFS pointer"),
    (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "is a GGUF file"),
    (b'{"architectures": ["PixDiT"]}', "is not a checkpoint"),
    (b"\x00" * 4096, "is not a checkpoint"),
    (b"\x80", "damaged or truncated"),
    (b"PK\x03\x04", "damaged or truncated"),
    (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "damaged or truncated"),
    (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "damaged or truncated"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_files_that_are_something_else(tmp_path, content, reason, suffix):
    path = tmp_path / f"download{suffix}"
    path.write_bytes(content)
    message = fails(path, reason)
    assert any(hint in message for hint in ("Get", "get", "Download", "download", "Choose"))


def test_a_missing_file_and_a_folder(tmp_path):
    fails(tmp_path / "nowhere.safetensors", "there is no such file")
    (tmp_path / "transformer").mkdir()
    fails(tmp_path / "transformer", "is a folder without weights", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_truncated_files(tiny, tmp_path, kind, share):
    state = dict(tiny().network.state_dict())
    path = tmp_path / "half.ckpt"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message = fails(path)
    assert "truncated" in message or "not a readable torch file" in message
    assert "get it again" in message or "Get the file again" in message


def test_damage_anywhere_is_an_error_that_a_person_can_read(tiny, tmp_path):
    """Random bytes changed: it loads, or it is a ValueError with the file's name; never anything else."""
    state = dict(tiny().network.state_dict())
    dice = random.Random(0)
    for suffix, save in {
        "safetensors": lambda path: save_file(state, path),
        "zip": lambda path: torch.save({"state_dict": state}, path),
        "pickle": lambda path: torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False),
    }.items():
        path = tmp_path / f"damaged.{suffix}"
        save(path)
        content = path.read_bytes()
        for attempt in range(40):
            broken = bytearray(content)
            for _ in range(8):  # in the header for the most part: that is where readers trip
                end = len(content) if attempt % 4 == 0 else min(len(content), 3000)
                broken[dice.randrange(end)] = dice.randrange(256)
            path.write_bytes(broken)
            try:
                pc.load_checkpoint(path)
            except ValueError as error:
                assert path.name in str(error)


class Evil:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call, name", [
    (lambda marker: (os.system, (f"echo > {marker}",)), "system"),
    (lambda marker: (eval, (f"open({str(marker)!r}, 'w')",)), "eval"),
    (lambda marker: (open, (str(marker), "w")), "open"),
    (lambda marker: (exec, (f"import pathlib; pathlib.Path({str(marker)!r}).touch()",)), "exec"),
])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(tiny, tmp_path, call, name, zipped):
    marker = tmp_path / "it-ran"
    path = tmp_path / "evil.ckpt"
    stored = {"state_dict": dict(tiny().network.state_dict()), "hyper_parameters": Evil(call(marker))}
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    for read in (pc.load_checkpoint, pc.inspect_checkpoint, pc.read_checkpoint):
        with pytest.raises(ValueError, match="evil.ckpt is a pickled file that wants to load") as error:
            read(path)
        assert name in str(error.value) and "nothing of it was run" in str(error.value)
        assert "Get the weights as .safetensors" in str(error.value)
        assert not marker.exists()
    with pytest.raises(ValueError):
        pc.save_checkpoint(path, tmp_path / "clean.safetensors")
    assert not marker.exists() and not (tmp_path / "clean.safetensors").exists()
    if name == "open":  # the trap is a real one
        torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_would_run_code_does_not(tmp_path):
    marker = tmp_path / "it-ran"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil((open, (str(marker), "w")))}))
    fails(path)
    assert not marker.exists()


def test_classes_of_a_trainer_are_named(tmp_path):
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": random.Random(0)}, path)
    fails(path, 'wants to load "random.Random"')


def test_the_random_state_of_numpy_loads(tiny, tmp_path):
    state = dict(tiny().network.state_dict())
    rng = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    for zipped in (True, False):
        path = tmp_path / f"trainer{zipped}.pth"
        torch.save({"state_dict": state, "rng_state": rng}, path, _use_new_zipfile_serialization=zipped)
        model = pc.load_checkpoint(path)
        assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


def test_a_pickle_is_told_by_its_content_whatever_its_name(tiny, tmp_path):
    state = dict(tiny().network.state_dict())
    for zipped in (True, False):
        path = tmp_path / f"renamed{zipped}.safetensors"
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
        assert pc.load_checkpoint(path).params == tiny().params
    path = tmp_path / "renamed.ckpt"
    save_file(state, path)
    assert pc.load_checkpoint(path).params == tiny().params


def test_a_header_whose_length_looks_like_a_pickle(tiny, tmp_path):
    """The first byte of a safetensors file is that of its header's length: 0x80 in one of 32 files."""
    state = dict(tiny().network.state_dict())
    path = tmp_path / "unlucky.safetensors"
    for padding in range(0, 256, 8):
        save_file(state, path, {"padding": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert pc.load_checkpoint(path).params == tiny().params


def test_pickles_of_other_things(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(1)], path)
    fails(path, "holds a list, not a dictionary of tensors")
    torch.save({"epoch": 3}, path)
    fails(path, "list.pt holds no tensors")
    torch.save({"state_dict": {}}, path)
    fails(path, "list.pt holds no tensors")
    archive = tmp_path / "workflow.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("workflow.json", "{}")
    fails(archive)


def file_of(path, *keys):
    save_file({key: torch.zeros(2, 2) for key in keys}, path)
    return path


@pytest.mark.parametrize("keys, reason", [
    (["core.pixel_embedder.proj.weight", "core.lq_proj.latent_proj.0.weight", "core.y_pos_embedding"], "is PiD"),
    (["ema_denoiser.in_context_posemb", "ema_denoiser.s_embedder.proj.weight"], "is PixelDiT2"),
    (["s_embedder.proj.weight", "patch_blocks.0.adaLN_modulation.1.weight"], "is PixelDiT2"),
    (["s_embedder.proj.weight", "final_layer.adaLN_modulation.1.weight"], "is PixelDiT2"),
    (["dino_conditioner.dino_proj.input_proj.weight"], "is PixelDiT2"),
    (["time_mlp.1.weight", "to_patch_embedding.0.weight"], "is a part of an x-prediction PixelDiT"),
    (["module.time_mlp.1.weight", "module.to_semantic_patch.0.weight"], "is a part of an x-prediction PixelDiT"),
    (["patch_blocks.0.attention.qkv_proj.q_proj.weight", "pixel_blocks.0.compaction.compress.weight"],
     "is a part of a PixelHDM"),
    (["pixel_embedder.proj.weight", "y_pos_embedding", "patch_blocks.0.attn.qkv_x.weight",
      "lq_proj.latent_proj.0.weight"],
     "is PiD"),
    (["diffusion_model.patch_blocks.0.attn.qkv.lora_up.weight",
      "diffusion_model.patch_blocks.0.attn.qkv.lora_down.weight"],
     "is a LoRA"),
    (["base_model.model.patch_blocks.0.attn.qkv.lora_A.weight"], "is a LoRA"),
    (["patch_blocks.0.attn.qkv.lora_A", "patch_blocks.0.attn.qkv.lora_B"], "is a LoRA of PixelDiT2"),
    (["ema_denoiser.in_context_posemb", "ema_denoiser.patch_blocks.0.attn.qkv.base_layer.weight",
      "ema_denoiser.patch_blocks.0.attn.qkv.lora_A"], "is PixelDiT2"),  # a training of its LoRA
    (["transformer.in_context_posemb", "transformer.dino_conditioner.encoder.layer.0.norm1.weight"], "is PixelDiT2"),
    (["ip_proj.weight", "ip_k.0.weight", "ip_v.0.weight", "ip_scale"], "is an image-prompt adapter"),
    (["model.embed_tokens.weight"], "is a text encoder"),
    (["decoder.conv_in.weight", "encoder.conv_in.weight"], "is a VAE"),
    (["model.diffusion_model.input_blocks.0.0.weight"], "is a Stable Diffusion model"),
    (["double_blocks.0.img_attn.qkv.weight"], "is a Flux model"),
    (["x_embedder.proj.weight", "blocks.0.attn.qkv.weight"], "is a DiT or SiT"),
])  # fmt: skip
def test_other_models_are_refused_by_name(tmp_path, keys, reason):
    path = file_of(tmp_path / "other.safetensors", *keys)
    fails(path, reason)
    info = pc.inspect_checkpoint(path)
    assert info.family is None and reason.removeprefix("is ") in info.title


def test_every_refusal_says_what_to_do(tmp_path):
    for kind in REFUSED:
        path = file_of(tmp_path / "other.safetensors", *(key.lstrip(".") for key in kind.keys))
        if all(not key.startswith(".") for key in kind.keys):
            fails(path)
        assert kind.advice.endswith(".") and len(kind.advice) > 20


def test_unknown_tensors_are_shown(tmp_path):
    path = file_of(tmp_path / "odd.safetensors", *(f"layer{number}.weight" for number in range(9)))
    fails(path, "is not a PixelDiT checkpoint", "layer0.weight, layer1.weight", "and 4 more", "hoose")


@pytest.mark.parametrize("prefix", ["", "core.", "net.", "model.diffusion_model."])
@pytest.mark.parametrize("name, writer", [("comfy-pid-v1", ""), ("comfy-pid-v1_5", "net.")])
def test_pid_is_refused_by_name(golden, tmp_path, name, writer, prefix):
    """It has every tensor of the text-to-image network, and more."""
    stored = load_file(golden(name, "peers").folder / "checkpoint.safetensors")
    path = tmp_path / "pid.safetensors"
    save_file({prefix + key.removeprefix(writer): value for key, value in stored.items()}, path)
    fails(path, "is PiD, a pixel diffusion decoder and upscaler, not a PixelDiT", "ComfyUI's own PiD nodes")
    assert pc.inspect_checkpoint(path).title.startswith("PiD")


@pytest.mark.parametrize("name", ["comfy-pid-v1", "comfy-pid-v1_5"])
def test_pid_as_it_comes_is_refused_by_name(golden, name):
    fails(golden(name, "peers").folder / "checkpoint.safetensors", "is PiD", "ComfyUI's own PiD nodes")


@pytest.mark.parametrize("file", ["lora_peft/adapter_model", "lora_diffusers/pytorch_lora_weights"])
def test_a_lora_of_another_program_is_refused_by_name(golden, file):
    fails(golden("madtune-t2i", "peers").folder / f"{file}.safetensors", "is a LoRA", "then add it with PixelDiT LoRA")


PARTS = ["pixel_embedder.proj.bias", "patch_blocks.1.attn.q_norm.weight", "pixel_blocks.0.mlp.fc2.weight",
         "patch_blocks.0.attn.q_norm.weight", "pixel_blocks.0.attn.proj.bias", "final_layer.linear.weight"]  # fmt: skip


@pytest.mark.parametrize("key", PARTS)
def test_a_missing_tensor_is_named(tiny_file, key):
    state = load_file(tiny_file)
    del state[key]
    path = tiny_file.with_name("changed.safetensors")
    save_file(state, path)
    message = fails(path, key)
    assert "get it again" in message and "incomplete" in message
    assert "PixelDiT, class-conditional" in pc.inspect_checkpoint(path).title


@pytest.mark.parametrize("key", PARTS)
def test_a_misshapen_tensor_is_named(tiny_file, key):
    state = load_file(tiny_file)
    wrong = torch.zeros(*state[key].shape[:-1], state[key].shape[-1] + 1)
    path = tiny_file.with_name("changed.safetensors")
    save_file(state | {key: wrong}, path)
    if key == "pixel_blocks.0.attn.proj.bias":  # a size is read from this one
        fails(path, "pixel_attn_hidden_size 25 does not divide", "damaged or of another network")
    else:
        fails(path, key, str(list(wrong.shape)))


@pytest.mark.parametrize("key", ["patch_blocks.0.attn.qkv.bias", "patch_blocks.0.norm3.weight", "x_embedder.weight"])
def test_an_extra_tensor_is_named(tiny_file, key):
    state = load_file(tiny_file)
    path = tiny_file.with_name("changed.safetensors")
    save_file(state | {key: torch.zeros(24)}, path)
    fails(path, key)


def test_a_gap_in_the_blocks_is_a_missing_tensor(tiny, tmp_path):
    state = tiny().network.state_dict()
    gap = {key.replace("patch_blocks.1.", "patch_blocks.3."): value for key, value in state.items()}
    path = tmp_path / "gap.safetensors"
    save_file(gap, path)
    fails(path, "patch_blocks.1.norm1.weight", "tensors are missing")
