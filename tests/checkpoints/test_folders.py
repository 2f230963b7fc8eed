"""Folders as users have them: shards of every kind, variants, one checkpoint alone, distributed ones, others."""

import json
import logging
import os

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoints.files import fails, same, write
from safetensors.torch import save_file

import pixeldit_core as pc


@pytest.fixture
def state(tiny):
    return {key: value.clone() for key, value in tiny().network.state_dict().items()}


def shards(folder, state, pattern, index=None, count=2):
    """A state dict in several files, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = sorted(state)
    where = {}
    for number in range(count):
        name = pattern.format(f"{number + 1:05}-of-{count:05}")
        part = {key: state[key] for key in keys[number::count]}
        (save_file if name.endswith(".safetensors") else torch.save)(part, folder / name)
        where |= dict.fromkeys(part, name)
    if index:
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    return folder


SHARDED = {
    "bin": ("pytorch_model-{}.bin", "pytorch_model.bin.index.json"),
    "bin of diffusers": ("diffusion_pytorch_model-{}.bin", "diffusion_pytorch_model.bin.index.json"),
    "bin, fp16": ("pytorch_model.fp16-{}.bin", "pytorch_model.bin.index.fp16.json"),
    "variant before": ("diffusion_pytorch_model.fp16-{}.safetensors",
                       "diffusion_pytorch_model.safetensors.index.fp16.json"),
    "variant after": ("diffusion_pytorch_model-{}.bf16.safetensors",
                      "diffusion_pytorch_model.safetensors.index.bf16.json"),
    "model, bf16": ("model.bf16-{}.safetensors", "model.safetensors.index.bf16.json"),
    "other stem": ("pixeldit-xl.v2-{}.safetensors", "pixeldit-xl.v2.safetensors.index.json"),
    "no index": ("model-{}.safetensors", None),
    "no index, bin": ("pixeldit_t2i-{}.bin", None),
    "no index, pth": ("pixeldit_t2i-{}.pth", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHARDED)
def test_shards_of_every_kind(state, tmp_path, kind):
    pattern, index = SHARDED[kind]
    folder = shards(tmp_path / "pipe" / "transformer", state, pattern, index)
    first, second = (folder / pattern.format(f"0000{number}-of-00002") for number in (1, 2))
    paths = [folder, tmp_path / "pipe", first, second, *([folder / index] if index else [])]
    for path in paths:
        assert same(pc.load_checkpoint(path), state), path
        assert pc.inspect_checkpoint(path).refused is None
    second.unlink()
    for path in paths:
        with pytest.raises(ValueError, match="(not there|not beside it|no such file)") as error:
            pc.load_checkpoint(path)
        assert second.name in str(error.value)


@pytest.mark.parametrize("mark", [".aria2", ".incomplete"])
def test_a_shard_that_is_being_downloaded(state, tmp_path, mark):
    folder = shards(tmp_path / "x", state, "model-{}.safetensors", "model.safetensors.index.json")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.with_name(shard.name + mark).write_bytes(b"")
    shard.unlink()
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors is an unfinished download"):
        pc.load_checkpoint(folder)


@pytest.mark.parametrize("file", ["../x.bin", "/etc/x.bin", "a\\x.bin", "C:x.bin", "x.safetensors", "x.pkl"])
def test_an_index_of_pickled_shards_does_not_lead_out_of_its_folder(tmp_path, file):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"x": file}}), encoding="utf-8")
    with pytest.raises(ValueError, match="names the file .*; only .bin files beside it are read"):
        pc.load_checkpoint(tmp_path)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "fp32", "ema", "fp8_e4m3fn", "my-own"])
@pytest.mark.parametrize("stem, end", [("diffusion_pytorch_model", "safetensors"), ("model", "safetensors"),
                                       ("pytorch_model", "bin")])  # fmt: skip
def test_a_variant_alone(state, tmp_path, variant, stem, end):
    folder = tmp_path / "pipe" / "transformer"
    folder.mkdir(parents=True)
    (tmp_path / "pipe" / "model_index.json").write_text('{"_class_name": "PixelDiTPipeline"}', encoding="utf-8")
    path = folder / f"{stem}.{variant}.{end}"
    (save_file if end == "safetensors" else torch.save)(state, path)
    for place in (tmp_path / "pipe", folder, path):
        assert same(pc.load_checkpoint(place), state)


def test_plain_weights_come_before_variants_and_bf16_before_fp16(tiny, state, tmp_path):
    other = dict(tiny(seed=5).network.state_dict())
    save_file(other, tmp_path / "model.fp16.safetensors")
    save_file(state, tmp_path / "model.bf16.safetensors")
    assert same(pc.load_checkpoint(tmp_path), state)
    plain = dict(tiny(seed=6).network.state_dict())
    torch.save(plain, tmp_path / "pytorch_model.bin")
    assert same(pc.load_checkpoint(tmp_path), plain)


@pytest.mark.parametrize(
    "name", ["imagenet256_pixeldit_xl_epoch80.ckpt", "pixeldit_t2i.pth", "last.pt", "a.safetensors"]
)
def test_one_checkpoint_in_a_folder(state, tmp_path, name):
    folder = tmp_path / "PixelDiT"
    folder.mkdir()
    path = write(folder / name, state)
    for other in ("README.md", ".gitattributes", "optimizer.bin", "scheduler.bin", "random_states_0.pkl", "._a.ckpt"):
        (folder / other).write_bytes(b"x")
    model = pc.load_checkpoint(folder)
    assert same(model, state) and model.spec.source == f"PixelDiT/{name}"
    write(folder / "b.ckpt", state)
    fails(folder, "several checkpoints", path.name, "b.ckpt", "Choose one of these files")


@pytest.mark.parametrize("place", [
    "checkpoints/last.ckpt", "checkpoint-500/transformer/diffusion_pytorch_model.safetensors", "weights/x.safetensors",
    "snapshots/0f3a/model.safetensors", "unet/diffusion_pytorch_model.bin",
])  # fmt: skip
def test_the_only_checkpoint_in_a_folder_of_the_folder(state, tmp_path, place):
    path = tmp_path / "run" / place
    path.parent.mkdir(parents=True)
    write(path, state)
    (tmp_path / "run" / "refs").mkdir()
    (tmp_path / "run" / "vae").mkdir()
    write(tmp_path / "run" / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": torch.ones(1)})
    assert same(pc.load_checkpoint(tmp_path / "run"), state)
    path.write_bytes(b"<!doctype html><title>Sign in</title>")
    fails(tmp_path / "run", f"{path.name} is a web page")


def test_checkpoints_in_folders_of_the_folder_are_named(state, tmp_path):
    for name in ("checkpoint-1", "checkpoint-2"):
        (tmp_path / "run" / name).mkdir(parents=True)
        write(tmp_path / "run" / name / "last.ckpt", state)
    fails(tmp_path / "run", "checkpoint-1/last.ckpt, checkpoint-2/last.ckpt", "Choose one of these")


def test_the_average_beside_a_transformer_is_named(state, tmp_path, caplog):
    for name in ("transformer", "transformer_ema"):
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "diffusion_pytorch_model.safetensors")
    assert same(pc.load_checkpoint(tmp_path), state)
    assert "The averaged (EMA) weights of that training are in transformer_ema" in caplog.text


def test_a_training_s_folder(tiny, state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "model_1.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert same(pc.load_checkpoint(tmp_path), state)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model_1.safetensors").unlink()
    fails(tmp_path, "the state of a training", "optimizer.bin")


def test_the_cache_of_the_hub(state, tmp_path):
    model = tmp_path / "models--nvidia--PixelDiT"
    for revision in ("0a1", "0b2"):
        (model / "snapshots" / revision).mkdir(parents=True)
    write(model / "snapshots" / "0b2" / "pixeldit.ckpt", state)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0b2\n", encoding="ascii")
    assert same(pc.load_checkpoint(model), state)
    assert same(pc.load_checkpoint(model / "snapshots" / "0b2"), state)


@pytest.mark.parametrize("name", ["pytorch_model_fsdp_0", "step-900", "dcp"])
def test_distributed_checkpoints(state, tmp_path, name):
    folder = tmp_path / "state" / name
    dcp.save({"model": state}, checkpoint_id=str(folder), no_dist=True)
    fails(folder, "distributed checkpoint", ".distcp", "dcp_to_torch", "merge-weights")
    fails(tmp_path / "state", f"state/{name} is a distributed checkpoint")
    fails(folder / "__0_0.distcp", "distributed checkpoint", "dcp_to_torch")
    fails(folder / ".metadata", "distributed checkpoint", "dcp_to_torch")


@pytest.mark.parametrize("name", [
    "zero_pp_rank_0_mp_rank_00_optim_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "zero_pp_rank_0_mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt",
])  # fmt: skip
def test_checkpoints_of_deepspeed(state, tmp_path, name):
    folder = tmp_path / "run" / "global_step900"
    folder.mkdir(parents=True)
    torch.save({"module": state}, folder / name)
    for path in (folder, folder.parent, folder / name):
        fails(path, "DeepSpeed", "zero_to_fp32.py")


def test_the_whole_network_in_a_checkpoint_of_deepspeed(state, tmp_path):
    """Where only the optimizer is sharded (ZeRO 1 and 2)."""
    folder = tmp_path / "run" / "global_step900"
    folder.mkdir(parents=True)
    path = folder / "mp_rank_00_model_states.pt"
    torch.save({"module": state, "optimizer": None, "ds_config": {"train_batch_size": 3}}, path)
    (folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"x")
    for place in (path, folder, folder.parent):
        assert same(pc.load_checkpoint(place), state)
    torch.save({"module": {"x": torch.ones(2)}}, path)
    for place in (path, folder, folder.parent):
        fails(place, "DeepSpeed", "zero_to_fp32.py")
    torch.save({"module": state}, path)
    (folder / "mp_rank_01_model_states.pt").write_bytes(b"x")
    for place in (path, folder, folder.parent):
        fails(place, "DeepSpeed", "zero_to_fp32.py")


@pytest.mark.parametrize("name, text", [("x.zip", "Unpack it"), ("x.7z", "Unpack it"), ("x.gguf", "not supported")])
def test_folders_with_one_file_that_is_not_read(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"x")
    fails(tmp_path, f"has no weights that are read, only {name}", text)


def test_folders_of_other_things(tmp_path):
    def folder(name, *files):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"x")
        return tmp_path / name

    fails(folder("empty"), "is a folder without weights, for nothing is in it")
    fails(folder("lora", "adapter_config.json", "adapter_model.safetensors"), "is the folder of a LoRA")
    fails(folder("unpacked", "data.pkl", "version", "data"), "a torch file that was unpacked")
    fails(folder("jax", "_CHECKPOINT_METADATA", "manifest.ocdbt"), "of TensorFlow or JAX")
    fails(folder("tf", "saved_model.pb"), "of TensorFlow or JAX")
    fails(folder("half", "model.safetensors.part"), "download has not finished (model.safetensors.part is in it)")
    with pytest.raises(ValueError, match="a.safetensors is an unfinished download .*Safari"):
        pc.load_checkpoint(folder("a.safetensors.download", "a.safetensors"))
    fails(folder("a.safetensors"), "is a folder without weights")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    fails(tmp_path, "may not be read by this user")


def test_nothing_is_logged_of_sound_folders(state, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    save_file(state, tmp_path / "model.safetensors")
    pc.load_checkpoint(tmp_path)
    assert not caplog.records
